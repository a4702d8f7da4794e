//go:build unix

package chaos

import (
	"os"
	"os/exec"
	"syscall"
)

// apart keeps a terminal's Ctrl-C from a child, which is for its parent to end.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func pause(p *os.Process) error  { return p.Signal(syscall.SIGSTOP) }
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
