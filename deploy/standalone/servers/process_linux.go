package servers

import "syscall"

// childAttributes keeps a terminal's Ctrl-C from the child, and lets no child outlive its parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
