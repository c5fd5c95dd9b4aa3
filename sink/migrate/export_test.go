package migrate

import (
	"context"
	"time"
)

// SetLockStale changes the age of a stale lock until the function that it returns is called.
func SetLockStale(d time.Duration) func() {
	old := lockStale
	lockStale = d
	return func() { lockStale = old }
}

// Apply is Run without the lock.
func (m *Migrator) Apply(ctx context.Context) error {
	if err := m.exec(ctx, "CREATE DATABASE IF NOT EXISTS "+ident(m.stored())); err != nil {
		return err
	}
	return m.apply(ctx)
}

// Statements is how many statements a migration has.
func Statements(version int) int { return len(all[version-1].statements("d")) }

// Begin applies the first statements of a migration, as one that dies after them.
func (m *Migrator) Begin(ctx context.Context, version, n int) error {
	for _, s := range all[version-1].statements(m.stored())[:n] {
		if err := m.execUnless(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
