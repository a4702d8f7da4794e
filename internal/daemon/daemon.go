// Package daemon is what the programs share around their work: configuration from
// the environment, logs that show no secret and no phone number, signals, and the
// exit code. What a program does is in edged and consumersd.
package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Main is a program's whole main: it reads the configuration C from the environment,
// runs until a signal, and returns the exit code. -h prints every variable. A second
// signal ends the program at once.
func Main[C any](about string, args []string, run func(ctx context.Context, cfg C, args []string, log *slog.Logger) error) int {
	for _, a := range args {
		if a == "-h" || a == "--help" || a == "-help" || a == "help" {
			if err := Usage[C](os.Stdout, about); err != nil {
				return fail(os.Stderr, err)
			}
			return 0
		}
		if strings.HasPrefix(a, "-") {
			return fail(os.Stderr, fmt.Errorf("unknown flag %s: configuration is by environment only, -h lists it", a))
		}
	}
	cfg, err := Load[C]()
	if err != nil {
		return fail(os.Stderr, err)
	}
	log := NewLogger(os.Stderr)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal has its usual effect
	if err := run(ctx, cfg, args, log); err != nil {
		return fail(os.Stderr, err)
	}
	return 0
}

// fail says in one line why the program ends.
func fail(w io.Writer, err error) int {
	_, _ = fmt.Fprintln(w, Redact(strings.ReplaceAll(err.Error(), "\n", "; ")))
	return 1
}
