//go:build !linux

package servers

import "syscall"

// childAttributes keeps a terminal's Ctrl-C from the child.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
