package consumersd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/internal/console"
	"leadpipe/internal/daemon"
	"leadpipe/internal/trace"
)

// listenConsole listens for the console; nil where it is switched off. Of several
// processes on one machine, which all have the default address, the first one serves it.
func listenConsole(cfg Config, log *slog.Logger) (net.Listener, error) {
	if cfg.ConsoleAddr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", cfg.ConsoleAddr)
	if err == nil {
		return l, nil
	}
	usual, derr := daemon.Defaults[Config]()
	if derr == nil && cfg.ConsoleAddr == usual.ConsoleAddr && errors.Is(err, syscall.EADDRINUSE) {
		log.Warn("no console here: another process has its address", "CONSOLE_ADDR", cfg.ConsoleAddr)
		return nil, nil
	}
	return nil, fmt.Errorf("CONSOLE_ADDR: %w", err)
}

// serveConsole serves the console until stop. It begins before NATS answers, since that
// is what it then shows. It only looks on: its failure is no end of the work.
func serveConsole(ctx context.Context, cfg Config, js jetstream.JetStream, l net.Listener, log *slog.Logger) (stop func(), err error) {
	c, err := console.New(console.Options{JS: js, Addr: cfg.ConsoleAddr, Password: string(cfg.ConsolePassword),
		Off: cfg.missing(), Log: log.With("part", "console"), Trace: Search(js, cfg.Region)})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := c.Serve(ctx, l); err != nil {
			log.Error("the console ended", "reason", err.Error())
		}
	}()
	log.Info("console", "url", "http://"+l.Addr().String())
	return func() { cancel(); <-ended }, nil
}

// Search is what `consumers trace` tells, for the console. region is that of numbers
// without a country's prefix.
func Search(js jetstream.JetStream, region string) func(context.Context, string) ([]console.Step, error) {
	return func(ctx context.Context, id string) ([]console.Step, error) {
		story, err := trace.Find(ctx, js, id, trace.Options{Region: region})
		if errors.Is(err, trace.ErrNoID) {
			return nil, nil // nothing is known of it
		}
		if err != nil {
			return nil, err
		}
		var steps []console.Step
		for _, s := range story.Steps {
			steps = append(steps, console.Step(s))
		}
		return steps, nil
	}
}
