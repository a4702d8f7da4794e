package consumersd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"leadpipe/internal/bus"
	"leadpipe/internal/daemon"
	"leadpipe/internal/state"
	"leadpipe/streams"
)

// defaultURL is where cmd/edge runs its server.
const defaultURL = "nats://127.0.0.1:4222"

// Run is the consumers program from configuration to drained: all durables, or those
// named. It returns nil after ctx has ended and work in hand is done.
func Run(ctx context.Context, cfg Config, names []string, log *slog.Logger) error {
	// What can be wrong is tried before anything is started or said.
	chosen, without, err := choose(cfg, names)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cfg.Metrics)
	if err != nil {
		return fmt.Errorf("METRICS_ADDR: %w", err)
	}
	defer func() { _ = listener.Close() }() // unless the server has
	page, err := listenConsole(cfg, log)
	if err != nil {
		return err
	}
	if page != nil {
		defer func() { _ = page.Close() }()
	}
	log.Info("configuration", daemon.Effective(cfg)...)
	for _, w := range without {
		log.Warn("consumer not started", "durable", w.durable, "reason", w.reason)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	url := cfg.URL
	if url == "" {
		url = defaultURL
	}
	js, err := bus.Connect(url, cfg.Creds, "consumers", log, func(err error) { fail(err) }, cfg.Auth("consumers", cfg.ConsumersPassword, url)...)
	if err != nil {
		return err
	}
	defer js.Conn().Close()

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if page != nil {
		stop, err := serveConsole(ctx, cfg, js, page, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	server := &http.Server{Handler: health(js, reg), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go func() { _ = server.Serve(listener) }() // ends with Close below
	defer func() { _ = server.Close() }()

	if err := apply(ctx, js, cfg, log); err != nil {
		return ended(ctx, err)
	}
	p := &parts{cfg: cfg, js: js, log: log, reg: reg, metrics: bus.NewMetrics(reg)}
	defer p.close()
	g, work := errgroup.WithContext(ctx)
	p.measure(work, g)
	for _, r := range chosen {
		if err := p.start(work, g, r); err != nil {
			return ended(ctx, err)
		}
	}
	log.Info("consumers run", "durables", names2(chosen), "metrics", listener.Addr().String())
	err = g.Wait()
	// What was acked last has to reach the server before the connection closes.
	if ferr := js.Conn().FlushTimeout(2 * time.Second); ferr != nil && err == nil && ctx.Err() == nil {
		err = ferr
	}
	return ended(ctx, err)
}

// ended tells a stop from a failure.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func names2(rows []row) string {
	var out []string
	for _, r := range rows {
		out = append(out, r.durable)
	}
	return strings.Join(out, " ")
}

// An unstarted durable is one that is not configured.
type unstarted struct{ durable, reason string }

// choose picks the rows to run, and says which are left out since they are not
// configured. That none is left to run is an error.
func choose(cfg Config, names []string) (chosen []row, without []unstarted, err error) {
	known := table()
	for _, n := range names {
		if !slices.ContainsFunc(known, func(r row) bool { return r.durable == n }) {
			var all []string
			for _, r := range known {
				all = append(all, r.durable)
			}
			return nil, nil, fmt.Errorf("no consumer is called %q; there are %s", n, strings.Join(all, ", "))
		}
	}
	missing := cfg.missing()
	var reasons []string
	for _, r := range known {
		if len(names) > 0 && !slices.Contains(names, r.durable) {
			continue
		}
		if why, ok := missing[r.durable]; ok {
			without = append(without, unstarted{r.durable, why})
			reasons = append(reasons, r.durable+": "+why)
			continue
		}
		chosen = append(chosen, r)
	}
	if len(chosen) == 0 {
		return nil, nil, fmt.Errorf("nothing to run: %s; -h lists the variables", strings.Join(reasons, ", "))
	}
	return chosen, without, nil
}

// Without names every durable but those given, for Run.
func Without(left ...string) []string {
	var names []string
	for _, r := range table() {
		if !slices.Contains(left, r.durable) {
			names = append(names, r.durable)
		}
	}
	return names
}

// apply creates what is missing on the server, and waits for one that is not there yet.
func apply(ctx context.Context, js jetstream.JetStream, cfg Config, log *slog.Logger) error {
	for waited := false; ; waited = true {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		drifts, err := streams.Apply(try, js, cfg.Replicas, cfg.undeclared()...)
		cancel()
		if err == nil {
			for _, d := range drifts {
				log.Warn("declared otherwise, left alone", "drift", d.String())
			}
			return nil
		}
		if ctx.Err() != nil { // a stop, whatever the try was told meanwhile
			return ctx.Err()
		}
		var api *jetstream.APIError
		if errors.As(err, &api) && api.Code < 500 {
			return err
		}
		if !waited {
			log.Warn("waiting for the NATS server", "reason", err.Error())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// health serves /metrics, /healthz (the process is up) and /readyz (it reaches NATS).
func health(js jetstream.JetStream, reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if js.Conn().Status() != nats.CONNECTED {
			http.Error(w, "no connection to NATS", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready"))
	})
	return mux
}

// store makes a durable's own view of the state, so that its metrics bear its name.
func (p *parts) store(durable string) *state.Store {
	return state.New(p.js, prometheus.WrapRegistererWith(prometheus.Labels{"durable": durable}, p.reg))
}
