package edged

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/bus/inproc"
	"leadpipe/internal/daemon"
	"leadpipe/internal/edge"
	"leadpipe/internal/webhook/facebook"
	"leadpipe/internal/webhook/stripe"
	"leadpipe/internal/webhook/twilio"
	"leadpipe/streams"
)

// drainTime is how long requests in hand may take after the stop: longer than
// PUBLISH_TIMEOUT can be, shorter than the 20 s that a program has.
const drainTime = 16 * time.Second

// Run is the edge from configuration to drained. It returns nil after ctx has ended
// and everything in hand is answered.
func Run(ctx context.Context, cfg Config, args []string, log *slog.Logger) error {
	if len(args) > 0 {
		return fmt.Errorf("edge takes no arguments: %q", args[0])
	}
	// What can be wrong is tried before anything is started or said. Whoever connects
	// meanwhile waits until the edge serves.
	providers, err := verifiers(cfg)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return fmt.Errorf("EDGE_ADDR: %w", err)
	}
	defer func() { _ = listener.Close() }() // unless the server has
	own := inproc.Options{ConfigFile: cfg.Conf, StoreDir: cfg.StoreDir, Monitoring: true}
	if cfg.URL == "" {
		if err := inproc.Try(own); err != nil {
			return err
		}
	}
	log.Info("configuration", daemon.Effective(cfg)...)
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	url, auth := cfg.URL, cfg.Auth("edge", cfg.EdgePassword, cfg.URL)
	full := func() error { return nil }
	if url == "" {
		srv, err := startServer(ctx, own, cfg.Replicas, log)
		if err != nil {
			return err
		}
		defer srv.Stop()
		go srv.Keep(ctx, log, reg)
		full = srv.Full
		log.Info("NATS server runs in-process", "url", srv.URL())
		url, auth = srv.URL(), srv.InProcess("edge")
	}
	js, err := bus.Connect(url, cfg.Creds, "edge", log, func(err error) { fail(err) }, auth...)
	if err != nil {
		return err
	}
	defer js.Conn().Close()

	if cfg.URL != "" {
		go createStream(ctx, js, cfg.Replicas, log)
	}
	e, err := build(cfg, providers, js, full, reg, log)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           e,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second, // a body of 1 MiB over a slow line
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	log.Info("edge listens", "addr", listener.Addr().String())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	log.Info("edge drains")
	e.Drain()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		log.Warn("connections that did not end are closed", "reason", err.Error())
		_ = server.Close() // ends them whatever it says
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// startServer starts the in-process server with its streams. On a disk without room it
// waits for some: the providers come again meanwhile.
func startServer(ctx context.Context, o inproc.Options, replicas int, log *slog.Logger) (*inproc.Server, error) {
	for said := false; ; said = true {
		srv, err := inproc.Start(ctx, o)
		if err == nil {
			if err = apply(ctx, srv, replicas, log); err == nil {
				return srv, nil
			}
			srv.Stop()
		}
		if ctx.Err() != nil || !inproc.NearlyFull(o.StoreDir) {
			return nil, err
		}
		if !said {
			log.Error("the NATS server can't start, and is tried again", "reason", inproc.ErrNearlyFull.Error(), "said", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

// verifiers makes what verifies the webhooks of each provider whose secret is set.
func verifiers(cfg Config) (o edge.Options, err error) {
	if len(cfg.StripeSecrets) > 0 {
		if o.Stripe, err = stripe.New(cfg.StripeSecrets.Strings(), cfg.StripeTolerance); err != nil {
			return o, fmt.Errorf("STRIPE_WEBHOOK_SECRET, STRIPE_TOLERANCE: %w", err)
		}
	}
	if len(cfg.FacebookSecrets) > 0 {
		if o.Facebook, err = facebook.New(cfg.FacebookSecrets.Strings(), string(cfg.FacebookVerify)); err != nil {
			return o, fmt.Errorf("FACEBOOK_APP_SECRET, FACEBOOK_VERIFY_TOKEN: %w", err)
		}
	}
	if len(cfg.TwilioTokens) > 0 {
		if o.Twilio, err = twilio.New(twilio.Options{Tokens: cfg.TwilioTokens.Strings(), Account: cfg.TwilioAccount,
			PublicURL: cfg.PublicURL, Region: cfg.Region}); err != nil {
			return o, fmt.Errorf("TWILIO_AUTH_TOKEN, PUBLIC_URL: %w", err)
		}
	}
	return o, nil
}

// build makes the HTTP side, with a route for every provider that there is. full says why
// nothing should be stored now.
func build(cfg Config, o edge.Options, js jetstream.JetStream, full func() error, reg *prometheus.Registry, log *slog.Logger) (*edge.Edge, error) {
	mode, err := bus.ParsePublishMode(cfg.PublishMode)
	if err != nil {
		return nil, fmt.Errorf("PUBLISH_MODE: %w", err)
	}
	reg.MustRegister(bus.Connected(js.Conn()))
	publisher := bus.NewPublisherWith(js, bus.PublishOptions{Mode: mode, Registerer: reg})
	o.Publisher, o.PublishTimeout, o.Log = reserved{publisher, full}, cfg.PublishTimeout, log
	o.Registerer, o.Metrics = reg, promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	o.Ready = func(ctx context.Context) error {
		if err := full(); err != nil {
			return err
		}
		stream, err := js.Stream(ctx, contracts.StreamWebhooks)
		if err != nil {
			return fmt.Errorf("asking for the WEBHOOKS stream: %w", err)
		}
		return errors.Join(bus.Ready(stream.CachedInfo()), publisher.Refused())
	}
	log.Info("providers", "stripe", o.Stripe != nil, "facebook", o.Facebook != nil, "twilio", o.Twilio != nil)
	return edge.New(o)
}

// A reserved publisher stores nothing while the disk's reserve would be used up, or its
// server is at fault.
type reserved struct {
	edge.Publisher
	full func() error
}

// Publish is edge.Publisher's.
func (r reserved) Publish(ctx context.Context, msgs []contracts.Message) error {
	if err := r.full(); err != nil {
		return err
	}
	return r.Publisher.Publish(ctx, msgs)
}

// createStream makes sure, once there is a server, that webhooks can be stored: a
// deployment may begin with the edge.
func createStream(ctx context.Context, js jetstream.JetStream, replicas int, log *slog.Logger) {
	for said := false; ; {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := streams.CreateWebhooks(try, js, replicas)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		if !said {
			log.Warn("the stream of webhooks is not there yet, trying on", "reason", err.Error())
			said = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// apply creates the streams and durables on the in-process server, which is ours.
func apply(ctx context.Context, srv *inproc.Server, replicas int, log *slog.Logger) error {
	nc, err := nats.Connect(srv.URL(), srv.InProcess("operator")...)
	if err != nil {
		return fmt.Errorf("connecting to the in-process NATS server: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("setting up JetStream: %w", err)
	}
	drifts, err := streams.Apply(ctx, js, replicas, contracts.Blacklist)
	if err != nil {
		return err
	}
	for _, d := range drifts {
		log.Warn("declared otherwise, left alone", "drift", d.String())
	}
	return nil
}
