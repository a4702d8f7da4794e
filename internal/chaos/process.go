package chaos

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// drainTime is how long a program may take to end after SIGTERM.
const drainTime = 20 * time.Second

// A process is one program of the pipeline that can be hit and started again.
type process struct {
	name    string   // "edge", "server-1", "consumers-2"
	program string   // what Child makes of it
	args    []string // of the program
	env     []string
	dir     string // where it runs, and its log is
	// fault is told how a program ended that was not made to end so.
	fault func(name, what string)

	mu    sync.Mutex
	cmd   *exec.Cmd // nil: it does not run
	stdin io.Closer
	ended chan struct{}
	want  bool // its end is our doing
}

func (p *process) log() string { return filepath.Join(p.dir, p.name+".log") }

// pid is the program's process, or 0.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// start starts the program, unless it runs.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the own executable: %w", err)
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", p.name, err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	_, _ = fmt.Fprintf(log, "--- %s starts at %s\n", p.name, time.Now().Format(time.StampMilli))
	cmd := exec.Command(exe, p.args...)
	cmd.Dir, cmd.Stderr = p.dir, log
	cmd.Env = append([]string{envProgram + "=" + p.program, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, p.env...)
	apart(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.stdin, p.ended, p.want = cmd, stdin, ended, false
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		want := p.want
		p.cmd = nil
		p.mu.Unlock()
		if !want {
			p.fault(p.name, fmt.Sprintf("ended by itself: %v; %s", err, lastLine(p.log())))
		}
		close(ended)
	}()
	return nil
}

// kill ends the program as a power cut would, and waits.
func (p *process) kill() {
	cmd, ended := p.ending()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // that it has ended meanwhile is as good
	<-ended
}

// terminate asks the program to end and waits; it must end within drainTime, with 0.
func (p *process) terminate() {
	cmd, ended := p.ending()
	if cmd == nil {
		return
	}
	_ = resume(cmd.Process)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
		// A server and a signal at the very start end with the signal's own code.
		if code := cmd.ProcessState.ExitCode(); code > 0 && p.program != "nats-server" {
			p.fault(p.name, fmt.Sprintf("ended with code %d after SIGTERM; %s", code, lastLine(p.log())))
		}
	case <-time.After(drainTime):
		p.fault(p.name, fmt.Sprintf("still runs %s after SIGTERM", drainTime))
		_ = cmd.Process.Kill()
		<-ended
	}
}

func (p *process) ending() (*exec.Cmd, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want = true
	return p.cmd, p.ended
}

// freeze stops the program in the middle of whatever it does, for some time.
func (p *process) freeze(d time.Duration) {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := pause(cmd.Process); err != nil {
		return
	}
	time.Sleep(d)
	_ = resume(cmd.Process)
}

// lastLine is the end of a log, for who reads why a program ended.
func lastLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}
