package consumersd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"golang.org/x/sync/errgroup"

	"leadpipe/internal/console"
	"leadpipe/internal/daemon"
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

// console serves the console in g. It only looks on: its failure is no end of the work.
func (p *parts) console(ctx context.Context, g *errgroup.Group, l net.Listener) error {
	c, err := console.New(console.Options{JS: p.js, Addr: p.cfg.ConsoleAddr, Password: string(p.cfg.ConsolePassword),
		Off: p.cfg.missing(), Log: p.log.With("part", "console")})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	g.Go(func() error {
		if err := c.Serve(ctx, l); err != nil {
			p.log.Error("the console ended", "reason", err.Error())
		}
		return nil
	})
	return nil
}
