// The sandbox runs the whole pipeline on this machine, with stand-ins for Stripe, Meta,
// Twilio and Google: `sandbox demo` sends the example webhooks and shows what each one
// caused, `sandbox run` stays, with a page to drive it, and `sandbox vendors` is the
// stand-ins alone, for an edge and consumers that are started by hand. `sandbox chaos` and
// `sandbox cluster` run the programs as processes of their own, and are hard on them;
// `sandbox bench` measures those of bin/.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"leadpipe/internal/chaos"
	"leadpipe/internal/daemon"
	"leadpipe/internal/sandbox"
)

// config is the sandbox's environment.
type config struct {
	EdgeAddr string `envconfig:"EDGE_ADDR" default:"127.0.0.1:3000" desc:"where the edge listens, of sandbox run"`
	PageAddr string `envconfig:"SANDBOX_ADDR" default:"127.0.0.1:3001" desc:"where the page is, of sandbox run"`
	Conf     string `envconfig:"NATS_CONF" default:"nats.conf" desc:"configuration of the NATS server"`
	Without  string `envconfig:"SANDBOX_WITHOUT" desc:"consumers that are left out, comma-separated, e.g. sms: demo then fails"`
	Verbose  bool   `envconfig:"SANDBOX_VERBOSE" default:"false" desc:"show the programs' log"`

	Seed     int           `envconfig:"CHAOS_SEED" default:"0" desc:"what sandbox chaos is drawn from; 0: a random one"`
	Length   time.Duration `envconfig:"CHAOS_TIME" default:"2m" desc:"how long its traffic and blows last; coming to rest takes another minute"`
	Bin      string        `envconfig:"BENCH_BIN" default:"bin" desc:"where make build has put the programs that sandbox bench measures"`
	BenchOut string        `envconfig:"BENCH_OUT" default:"docs" desc:"where it writes bench.json and bench.md"`
}

func main() {
	chaos.Child() // does not return in a program of chaos or of a cluster
	os.Exit(daemon.Main("sandbox demo|run|vendors|chaos|cluster|bench: the whole pipeline on one machine, with stand-ins for the world, or these alone", os.Args[1:], run))
}

func run(ctx context.Context, cfg config, args []string, log *slog.Logger) (err error) {
	if len(args) != 1 || !slices.Contains([]string{"demo", "run", "vendors", "chaos", "cluster", "bench"}, args[0]) {
		return errors.New("say what to do: sandbox demo, run, vendors, chaos, cluster or bench")
	}
	if args[0] == "chaos" || args[0] == "cluster" {
		return hard(ctx, cfg, args[0])
	}
	if args[0] == "bench" {
		return measure(ctx, cfg)
	}
	if args[0] == "vendors" {
		s, err := sandbox.Vendors(filepath.Join("data", "service-account.json"))
		if err != nil {
			return err
		}
		fmt.Println("Meta, Twilio and Google stand ready on 127.0.0.1:3002 to 3004, with the accounts of README.md. Stop them with Ctrl-C.")
		<-ctx.Done()
		return s.Close()
	}
	start := time.Now()
	dir, err := os.MkdirTemp("", "sandbox")
	if err != nil {
		return fmt.Errorf("making a directory for the sandbox: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if !cfg.Verbose {
		log = slog.New(slog.NewJSONHandler(io.Discard, nil))
	}
	o := sandbox.Options{Dir: dir, NATSConf: cfg.Conf, NATSPort: -1, EdgeAddr: "127.0.0.1:0", Log: log,
		Latency: 20 * time.Millisecond, Hurry: true}
	if cfg.Without != "" {
		o.Without = strings.Split(cfg.Without, ",")
	}
	if args[0] == "run" {
		o.NATSPort, o.EdgeAddr, o.StepDelay = 0, cfg.EdgeAddr, 200*time.Millisecond // a person sees a text on its way
	}
	s, err := sandbox.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if args[0] == "run" {
		fmt.Printf("The pipeline runs. Drive it at http://%s, look into it with\n  nats --server %s kv ls crm\nStop it with Ctrl-C.\n", cfg.PageAddr, s.NATS.UserURL("operator"))
		return s.Page(ctx, cfg.PageAddr)
	}
	if err := s.Demo(ctx, os.Stdout); err != nil {
		return err
	}
	fmt.Printf("\nEvery webhook had its effect, %.1f s after the start.\n", time.Since(start).Seconds())
	return nil
}
