//go:build !linux

package doctor

import (
	"errors"
	"time"
)

func synchronised() (bool, time.Duration, error) { return false, 0, errors.ErrUnsupported }
