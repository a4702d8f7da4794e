package consumersd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/daemon"
	"leadpipe/internal/natstest"
)

// A second process on one machine has the default address too, and works without a
// console. An address that was chosen and is taken is a mistake.
func TestConsoleAddressThatIsTaken(t *testing.T) {
	t.Parallel()
	cfg, err := daemon.Defaults[Config]()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if l, err := net.Listen("tcp", cfg.ConsoleAddr); err == nil { // else somebody else has it
		defer func() { _ = l.Close() }()
	}
	if l, err := listenConsole(cfg, log); l != nil || err != nil {
		t.Errorf("the default address is taken: %v, %v", l, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	cfg.ConsoleAddr = l.Addr().String()
	if _, err := listenConsole(cfg, log); err == nil || !strings.HasPrefix(err.Error(), "CONSOLE_ADDR: ") {
		t.Errorf("a chosen address is taken: %v", err)
	}
	cfg.ConsoleAddr = ""
	if l, err := listenConsole(cfg, log); l != nil || err != nil {
		t.Errorf("switched off: %v, %v", l, err)
	}
}

// The console is there while NATS is not, and says so; and it ends with the program.
func TestConsoleWithoutNATS(t *testing.T) {
	t.Parallel()
	cfg, err := daemon.Defaults[Config]()
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConsoleAddr = natstest.Addr(t)
	cfg.URL, cfg.Metrics = "nats://consumers:consumers@127.0.0.1:1", "127.0.0.1:0"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, []string{"billing"}, slog.New(slog.DiscardHandler)) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get("http://" + cfg.ConsoleAddr + "/api/state")
		if err == nil {
			body, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || !strings.Contains(string(body), `"connected":false`) {
				t.Errorf("without NATS the console says %s, %v", body, err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no console without NATS")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}
