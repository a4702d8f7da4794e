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
	Kind     string // "webhook", "record", "text" or "incident"
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

	woken  chan struct{} // somebody looks
	awake  bool
	linger time.Duration
	looked time.Time       // when somebody last did
	ready  chan struct{}   // closed when nothing is behind
	behind map[string]bool // watchers that have not come to what is new

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
	c := &Console{o: o, guard: newGuard(o.Addr, o.Password), seal: seal, viewers: map[chan []byte]struct{}{},
		closing: make(chan struct{}), woken: make(chan struct{}, 1), linger: linger}
	c.forget()
	return c, nil
}

// longestLook bounds how long a page waits for what there is.
const longestLook = 1500 * time.Millisecond

// linger is how long a console goes on watching when nobody looks any more.
const linger = time.Minute

// Run waits until somebody looks, and then watches as long as somebody does: a console
// that nobody looks at costs nothing. It survives every outage of the server, and
// returns nil when ctx ends.
func (c *Console) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			close(c.closing)
			return nil
		case <-c.woken:
		}
		c.session(ctx)
	}
}

// session watches until nobody has looked for a while.
func (c *Console) session(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for what, watch := range map[string]func(context.Context) error{"webhooks": c.watchWebhooks, "records": c.watchRecords,
		"the last hour": c.readHour, "incidents": c.readIncidents} {
		wg.Go(func() { c.follow(ctx, what, watch) })
	}
	wg.Go(func() { c.pollHealth(ctx) })
	wg.Go(func() { c.tell(ctx) })
	for look := time.NewTicker(min(time.Second, c.linger)); ; {
		select {
		case <-ctx.Done():
		case <-look.C:
			c.mu.Lock()
			if len(c.viewers) > 0 {
				c.looked = time.Now()
			}
			alone := time.Since(c.looked) > c.linger
			c.mu.Unlock()
			if !alone {
				continue
			}
		}
		look.Stop()
		break
	}
	cancel()
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	again := len(c.viewers) > 0 || time.Since(c.looked) < c.linger // somebody came just now
	c.forget()
	if again {
		c.awake = true
		c.woken <- struct{}{}
	}
}

// forget makes everything as it was before anybody looked. The caller holds c.mu.
func (c *Console) forget() {
	c.book, c.charts, c.incidents, c.health = newBook(), newCharts(), newIncidents(), durables(c.o.Off)
	c.dirty, c.seenWebhook, c.seenRecord, c.begun = dirty{}, 0, 0, 0
	c.started, c.begin, c.ready, c.behind, c.awake = sync.Once{}, make(chan struct{}), make(chan struct{}), map[string]bool{"webhooks": true, "records": true, "incidents": true}, false
}

// look says that somebody looks now, and waits until the console knows what there is, or
// for a moment at the longest.
func (c *Console) look(ctx context.Context) {
	c.mu.Lock()
	c.looked = time.Now()
	if !c.awake {
		c.awake = true
		c.woken <- struct{}{}
	}
	ready := c.ready
	c.mu.Unlock()
	select {
	case <-ready:
	case <-ctx.Done():
	case <-time.After(longestLook):
	}
}

// caughtUp says that a watcher has come to what is new. The caller holds c.mu.
func (c *Console) caughtUp(what string) {
	if !c.behind[what] {
		return
	}
	delete(c.behind, what)
	if len(c.behind) == 0 {
		close(c.ready)
	}
}

// errDone says that a watcher has seen all that it was for.
var errDone = errors.New("done")

// follow runs a watcher again whenever it ends, until ctx does or it is done.
func (c *Console) follow(ctx context.Context, what string, watch func(context.Context) error) {
	for told := ""; ; {
		err := watch(ctx)
		if ctx.Err() != nil || errors.Is(err, errDone) {
			return
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			c.o.Log.Warn("the console waits for "+what, "reason", told)
		}
		select {
		case <-ctx.Done():
			return
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
