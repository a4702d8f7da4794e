//go:build !unix

package chaos

import (
	"errors"
	"os"
	"os/exec"
)

func apart(*exec.Cmd) {}

var errNoSignals = errors.New("this system can't freeze a process")

func pause(*os.Process) error  { return errNoSignals }
func resume(*os.Process) error { return errNoSignals }
