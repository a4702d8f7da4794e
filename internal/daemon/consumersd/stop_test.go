package consumersd

import (
	"context"
	"log/slog"
	"testing"

	"leadpipe/internal/bus"
	"leadpipe/internal/daemon"
)

// A stop that comes while the server is being looked for is a stop, whatever the look said.
func TestStopWhileNATSIsLookedFor(t *testing.T) {
	t.Parallel()
	cfg, err := daemon.Defaults[Config]()
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		ctx, cancel := context.WithCancel(t.Context())
		js, err := bus.Connect("nats://consumers:consumers@127.0.0.1:1", "", "consumers", slog.New(slog.DiscardHandler), func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		go cancel() // meets the look at any point of it
		err = ended(ctx, apply(ctx, js, cfg, slog.New(slog.DiscardHandler)))
		js.Conn().Close()
		if err != nil {
			t.Fatalf("a stop ended the program with %v", err)
		}
	}
}
