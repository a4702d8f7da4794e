package chaos

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/daemon/edged"
)

const (
	envProgram  = "LEADPIPE_PROGRAM"   // which program a child is
	envCallTime = "LEADPIPE_CALL_TIME" // consumersd.Config.CallTime, where it is set
)

// Child makes this process the program that it was started as, and does not return
// then. In a process that nobody here has started it does nothing.
func Child() {
	name := os.Getenv(envProgram)
	if name == "" {
		return
	}
	// The parent holds the other end of stdin: a child does not outlive it.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	switch name {
	case "nats-server":
		os.Exit(natsServer(os.Args[1:]))
	case "edge":
		os.Exit(edged.Main(os.Args[1:]))
	case "consumers":
		os.Exit(consumers(os.Args[1:]))
	}
	fmt.Fprintf(os.Stderr, "%s names no program: %q\n", envProgram, name)
	os.Exit(2)
}

// consumers is the real program; where a run has no time for Twilio's, calls end earlier
// and leases are shorter.
func consumers(args []string) int {
	limit, err := time.ParseDuration(cmp.Or(os.Getenv(envCallTime), "0s"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if limit == 0 {
		return consumersd.Main(args)
	}
	return daemon.Main("consumers", args, func(ctx context.Context, cfg consumersd.Config, args []string, log *slog.Logger) error {
		cfg.CallTime, cfg.LookEvery = limit, 10*time.Second
		return consumersd.Run(ctx, cfg, args, log)
	})
}

// natsServer is what nats-server's own main does.
func natsServer(args []string) int {
	fs := flag.NewFlagSet("nats-server", flag.ExitOnError)
	opts, err := server.ConfigureOptions(fs, args, server.PrintServerAndExit, fs.Usage, server.PrintTLSHelpAndDie)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	srv.ConfigureLogger()
	if err := server.Run(srv); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	srv.WaitForShutdown()
	return 0
}
