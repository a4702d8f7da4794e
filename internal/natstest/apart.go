package natstest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/internal/bus"
	"leadpipe/internal/bus/inproc"
	"leadpipe/streams"
)

// apart tells a test binary that it is the server that Apart has started.
const apart = "NATSTEST_APART"

// ServeApart belongs first into the TestMain of a package that uses Apart. In the process
// that Apart has started it is the server, and does not return.
func ServeApart() {
	dir := os.Getenv(apart)
	if dir == "" {
		return
	}
	if err := serveApart(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveApart(dir string) error {
	ctx := context.Background()
	srv, err := inproc.Start(ctx, inproc.Options{ConfigFile: os.Getenv(apart + "_CONF"), StoreDir: dir, Port: -1})
	if err != nil {
		return err
	}
	nc, err := nats.Connect(srv.URL(), srv.InProcess("operator")...)
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if _, err := streams.Apply(ctx, js, 1); err != nil {
		return err
	}
	nc.Close()
	fmt.Println(srv.UserURL("edge"), srv.UserURL("operator"))
	_, err = io.Copy(io.Discard, os.Stdin) // until the test has ended, however it ended
	srv.Stop()
	return err
}

// A Process is a server in a process of its own, for tests that count what the process of
// the test itself needs, or that stop a server in the middle of its work.
type Process struct {
	Edge, Operator string // the URLs of two users
	PID            int
	tb             testing.TB
}

// Apart starts a server in a process of its own, from nats.conf and with all streams. It
// ends with the test.
func Apart(tb testing.TB) *Process {
	tb.Helper()
	cmd := exec.Command(os.Args[0]) //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), apart+"="+tb.TempDir(), apart+"_CONF="+Root(tb, "nats.conf"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the server's process: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	urls := strings.Fields(line)
	if len(urls) != 2 {
		tb.Fatalf("the server's process says %q, %v", line, err)
	}
	return &Process{Edge: urls[0], Operator: urls[1], PID: cmd.Process.Pid, tb: tb}
}

// JetStream connects as the edge does.
func (p *Process) JetStream() jetstream.JetStream {
	p.tb.Helper()
	nc, err := nats.Connect(p.Edge, nats.CustomInboxPrefix(bus.InboxPrefix("edge")), nats.MaxReconnects(-1))
	if err != nil {
		p.tb.Fatal(err)
	}
	p.tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		p.tb.Fatal(err)
	}
	return js
}
