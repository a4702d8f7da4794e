// Package console is the page on which people see what the pipeline does: the health
// and lag of each durable, the last hour as charts, what needs a person, and the latest
// webhooks as they come, each with the records and texts that it caused. It only reads,
// and it holds a bounded window of what passes by, never the bucket as a whole.
package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// User is who logs in where a password is set.
const User = "operator"

// Options say what a console shows, and to whom. JS and Addr are needed.
type Options struct {
	JS       jetstream.JetStream // may create consumers on both streams, and read the bucket
	Addr     string              // where it is served; it decides whether a password is needed
	Password string
	Off      map[string]string // durables that are not configured, and why
	// Trace finds what happened to one lead, person, payment or text; nil: no search.
	Trace func(ctx context.Context, id string) ([]Step, error)
	// Panel, where there is one, is served under /panel/ and shown on the page.
	Panel http.Handler
	Log   *slog.Logger
}

// A Step is one thing that happened, as Trace tells it.
type Step struct {
	At       time.Time
	Kind     string // "webhook", "record", "sms", "incident", …
	Title    string
	Detail   string
	Stream   string
	Sequence uint64
	Subject  string
	Key      string
}

// A Console watches the streams and serves the page. Run it, and serve Handler.
type Console struct {
	o     Options
	guard *guard
	seal  *sealer

	mu        sync.Mutex
	book      *book
	charts    *charts
	incidents *incidents
	health    []durable
	dirty     dirty
	viewers   map[chan []byte]struct{}
	closing   chan struct{}

	started     sync.Once
	begin       chan struct{} // closed when begun is known
	begun       uint64        // the last webhook that was there before this console
	seenWebhook uint64        // the last that was read, for going on after an outage
	seenRecord  uint64
}

// New checks the options. An error names the variable that is wrong.
func New(o Options) (*Console, error) {
	if o.JS == nil {
		return nil, errors.New("console: a JetStream context must be given")
	}
	if err := CheckAddr(o.Addr, o.Password); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	seal, err := newSealer()
	if err != nil {
		return nil, err
	}
	return &Console{o: o, guard: newGuard(o.Addr, o.Password), seal: seal, book: newBook(), charts: newCharts(),
		incidents: newIncidents(), health: durables(o.Off), viewers: map[chan []byte]struct{}{}, closing: make(chan struct{}), begin: make(chan struct{})}, nil
}

// Run watches until ctx ends. It survives every outage of the server, and returns nil.
func (c *Console) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.follow(ctx, "webhooks", c.watchWebhooks) })
	g.Go(func() error { return c.follow(ctx, "records", c.watchRecords) })
	g.Go(func() error { return c.follow(ctx, "the last hour", c.readHour) })
	g.Go(func() error { return c.follow(ctx, "incidents", c.readIncidents) })
	g.Go(func() error { c.pollHealth(ctx); return nil })
	g.Go(func() error { c.tell(ctx); return nil })
	<-ctx.Done()
	close(c.closing)
	return g.Wait()
}

// errDone says that a watcher has seen all that it was for.
var errDone = errors.New("done")

// follow runs a watcher again whenever it ends, until ctx does or it is done.
func (c *Console) follow(ctx context.Context, what string, watch func(context.Context) error) error {
	for told := ""; ; {
		err := watch(ctx)
		if ctx.Err() != nil || errors.Is(err, errDone) {
			return nil
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			c.o.Log.Warn("the console waits for "+what, "reason", told)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// Serve serves the page on a listener and watches, until ctx ends.
func (c *Console) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: c.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(c.o.Log.Handler(), slog.LevelWarn)}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	g.Go(func() error {
		if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the console: %w", err)
		}
		return nil
	})
	return g.Wait()
}
