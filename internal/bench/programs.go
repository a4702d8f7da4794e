package bench

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"leadpipe/internal/freeport"
	"leadpipe/internal/sandbox"
	"leadpipe/internal/serverconf"
)

// A program is one of bin/, as a process.
type program struct {
	cmd  *exec.Cmd
	log  *os.File
	rest float64 // megabytes, before anything was asked of it
	most float64
	mu   sync.Mutex
	stop chan struct{}
}

// start starts a program in a directory of its own, and watches its memory.
func start(binary, dir string, args []string, env ...string) (*program, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Stderr = dir, log
	cmd.Env = append(append([]string{"PATH=" + os.Getenv("PATH")}, serverconf.Passwords...), env...)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", binary, err), log.Close())
	}
	p := &program{cmd: cmd, log: log, stop: make(chan struct{})}
	go p.watch()
	return p, nil
}

// watch keeps the most memory that was seen.
func (p *program) watch() {
	for t := time.NewTicker(50 * time.Millisecond); ; {
		select {
		case <-p.stop:
			t.Stop()
			return
		case <-t.C:
		}
		mb := p.resident()
		p.mu.Lock()
		p.most = max(p.most, mb)
		p.mu.Unlock()
	}
}

// atRest notes what the program needs before anything is asked of it.
func (p *program) atRest() {
	time.Sleep(500 * time.Millisecond)
	p.rest = p.resident()
}

// again forgets the most that was seen.
func (p *program) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = 0
}

func (p *program) sizes() Sizes {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Sizes{Rest: p.rest, Load: p.most}
}

// resident is the program's memory in megabytes; 0 where the system does not tell.
func (p *program) resident() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, after, _ := bytes.Cut(status, []byte("VmRSS:"))
	fields := strings.Fields(string(after[:min(len(after), 40)]))
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.ParseFloat(fields[0], 64)
	return kb * 1024 / 1e6
}

// freeze stops the program where it is, until it is told to go on.
func (p *program) freeze() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

func (p *program) goOn() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// end ends the program, and waits.
func (p *program) end() {
	if p == nil {
		return
	}
	close(p.stop)
	_ = p.goOn()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(30*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait()
	_ = p.log.Close()
}

// free gives addresses that nobody listens on.
func free(n int) ([]string, error) {
	var all []string
	for range n {
		port, err := freeport.Port()
		if err != nil {
			return nil, err
		}
		all = append(all, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	return all, nil
}

// startEdge starts an edge; of is what tells it from another.
func startEdge(binary, dir, addr string, of ...string) (*program, error) {
	p, err := start(binary, dir, nil, append([]string{"EDGE_ADDR=" + addr, "PUBLIC_URL=http://" + addr, "STRIPE_WEBHOOK_SECRET=" + sandbox.StripeSecret}, of...)...)
	if err != nil {
		return nil, err
	}
	return p, answers("http://" + addr + "/readyz")
}

// answers waits until a page is 200.
func answers(url string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(url)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer 200", url)
		}
	}
}
