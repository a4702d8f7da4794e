package bus_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
)

// waited counts the lines of a log.
type waited struct{ lines atomic.Int32 }

func (w *waited) Write(p []byte) (int, error) {
	w.lines.Add(1)
	return len(p), nil
}

// A loop whose server can't be asked for the durable just then, since it starts or has no
// leader yet, waits for it; a program must not end for that.
func TestLoopWaitsForTheDurable(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.LazySync)
	r.send(1)
	nc := r.Connect("consumers", nats.ReconnectBufSize(-1)) // what is asked meanwhile is lost at once
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var log waited
	handled := make(chan struct{})
	l, err := bus.NewLoop(js, bus.Options{Stream: contracts.StreamWebhooks, Durable: contracts.Billing, Max: 1, Store: r.store,
		Handle: func(_ context.Context, msgs []contracts.Message) []error {
			close(handled)
			return make([]error, len(msgs))
		},
		Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: bus.NewMetrics(prometheus.NewRegistry())})
	if err != nil {
		t.Fatal(err)
	}
	r.Nodes[0].Stop()
	eventually(t, "the connection is lost", func() bool { return !nc.IsConnected() })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	eventually(t, "the loop waits", func() bool { return log.lines.Load() > 0 })
	r.Start(0)
	select {
	case err := <-ended:
		t.Fatalf("the loop ended: %v", err)
	case <-handled:
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
