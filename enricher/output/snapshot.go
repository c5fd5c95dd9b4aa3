package output

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/proto/delivery"
)

// ErrPending says that rows wait for the next output. They would be lost in a snapshot.
var ErrPending = errors.New("rows wait for the next output")

// Whole says whether no rows wait for the next output. It does so behind every tick.
func (s *Stream) Whole() bool { return s.err == nil && !s.pending() }

// Save writes the state of the stream, between two records, while it is whole. The number of the last output
// is not in it: whoever stores the state names it.
func (s *Stream) Save(w io.Writer) error {
	if !s.Whole() {
		return errors.Join(ErrPending, s.err)
	}
	var b []byte
	for _, v := range []int64{s.offset, s.cutAt, s.logTime, int64(s.config.Output.Every), int64(s.config.Output.MaxBytes)} {
		b = binary.AppendVarint(b, v)
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return s.fold.Save(w)
}

// Load returns the stream whose state was saved, with the settings that it had: those in c are not looked at.
// For older and for the errors see [fold.Load]. It puts nothing out before [Stream.Continue].
func Load(r io.Reader, c Config) (s *Stream, older bool, err error) {
	s = New(c, nil)
	s.fold, older, err = s.load(r, rows{s})
	if err != nil {
		return nil, false, err
	}
	if err := s.fold.Label(c.Labels); err != nil {
		return nil, false, err
	}
	s.config.Fold = s.fold.Settings()
	return s, older, nil
}

// load reads all but the fold into s, and returns the fold.
func (s *Stream) load(r io.Reader, out fold.Output) (*fold.Fold, bool, error) {
	in := bufio.NewReader(r)
	var every, most int64
	for _, v := range []*int64{&s.offset, &s.cutAt, &s.logTime, &every, &most} {
		var err error
		if *v, err = binary.ReadVarint(in); err != nil {
			return nil, false, fmt.Errorf("%w: %w", fold.ErrSnapshot, err)
		}
	}
	s.config.Output.Every, s.config.Output.MaxBytes = time.Duration(every), int(most)
	return fold.Load(in, int(s.config.Partition), out)
}

// LoadFold returns the fold of a stream whose state was saved, for another output than the stream's. It has no
// labels before [fold.Fold.Label].
func LoadFold(r io.Reader, partition int, out fold.Output) (*fold.Fold, error) {
	s := Stream{config: Config{Partition: uint32(partition)}}
	f, _, err := s.load(r, out)
	return f, err
}

// Continue lets the stream go on under another owner's epoch.
func (s *Stream) Continue(epoch delivery.Epoch, numbers *delivery.Numbers, emit func(number uint64, value []byte) error) {
	s.config.Epoch, s.config.Emit, s.numbers = epoch, emit, numbers
	s.allEmitted()
}

// Settings are those that the stream goes by.
func (s *Stream) Settings() (fold.Settings, Settings) { return s.fold.Settings(), s.config.Output }

// Set lets the stream go by other settings from the next record on. From there on the log gives other outputs,
// so a snapshot has to follow before anything is folded: see [delivery.Owner.MaySwitch].
func (s *Stream) Set(f fold.Settings, o Settings) {
	s.fold.Set(f)
	s.config.Fold, s.config.Output = f, o
}
