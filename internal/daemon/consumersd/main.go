package consumersd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/internal/daemon"
	"leadpipe/internal/state"
)

// about is what -h says first.
const about = `consumers [billing] [leads] [optouts] [sms] [blacklist] [sheets]: the durable consumers; all without arguments
consumers COMMAND …: what an operator does; consumers COMMAND -h says how. Commands: `

// Main is the whole program: the durables, or one of the operator's commands. It returns
// the exit code: of a command 0 when it is done, 1 when not, 2 when wrongly called.
func Main(args []string) int {
	if len(args) > 0 && args[0] == "check" {
		return check(args[1:], os.Stdout, os.Stderr)
	}
	names := []string{"check"}
	for _, c := range commands() {
		if len(args) > 0 && args[0] == c.name {
			return c.main(args[1:], os.Stdin, os.Stdout, os.Stderr)
		}
		names = append(names, c.name)
	}
	return daemon.Main(about+strings.Join(names, ", "), args, Run)
}

// A command is one thing that an operator does.
type command struct {
	name  string
	args  string // as -h shows them
	does  string
	count int // of arguments
	flags func(*flag.FlagSet, *options)
	run   func(*operator, options, []string) error
}

// options are the flags that commands have, each those that it declares.
type options struct {
	json    bool
	yes     bool
	request string
}

// An operator is what a command works with.
type operator struct {
	ctx   context.Context
	cfg   Config
	js    jetstream.JetStream
	store *state.Store
	in    io.Reader
	out   io.Writer
	tty   bool // somebody can be asked

	progress progress
}

// commands is the table of all that there are.
func commands() []command {
	return append(consentCommands(), traceCommand(), replayCommand())
}

// errUsage is a wrong call: exit code 2. errSaid is a failure that the command has
// told of already.
var (
	errUsage = errors.New("wrongly called")
	errSaid  = errors.New("not done")
)

func (c command) main(args []string, in io.Reader, out, errOut io.Writer) int {
	var o options
	set := flag.NewFlagSet(c.name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.BoolVar(&o.json, "json", false, "print one JSON document")
	if c.flags != nil {
		c.flags(set, &o)
	}
	rest, err := parse(set, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintf(out, "consumers %s %s\n\n%s\n\nFlags:\n", c.name, c.args, c.does)
		set.SetOutput(out)
		set.PrintDefaults()
		_, _ = fmt.Fprintln(out, "\nIt reads the same environment as the program (consumers -h) and connects as the user operator.")
		return 0
	case err != nil, len(rest) != c.count:
		if err == nil {
			err = fmt.Errorf("%d arguments, not %d", len(rest), c.count)
		}
		_, _ = fmt.Fprintf(errOut, "consumers %s: %v; usage: consumers %s %s\n", c.name, err, c.name, c.args)
		return 2
	}
	if err := c.start(o, rest, in, out, errOut); err != nil {
		if errors.Is(err, errSaid) {
			return 1
		}
		_, _ = fmt.Fprintf(errOut, "consumers %s: %s\n", c.name, daemon.Redact(strings.ReplaceAll(err.Error(), "\n", "; ")))
		if errors.Is(err, errUsage) {
			return 2
		}
		return 1
	}
	return 0
}

// parse takes flags before and behind the arguments, as people write them.
func parse(set *flag.FlagSet, args []string) (rest []string, err error) {
	for len(args) > 0 {
		if err := set.Parse(args); err != nil {
			return nil, err
		}
		if args = set.Args(); len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	return rest, nil
}

// start connects and runs the command.
func (c command) start(o options, args []string, in io.Reader, out, errOut io.Writer) error {
	cfg, err := daemon.Load[Config]()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	js, err := dial(cfg)
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	op := &operator{ctx: ctx, cfg: cfg, js: js, store: state.New(js, nil), in: in, out: out, tty: terminal(in)}
	if terminal(errOut) {
		op.progress = progress{out: errOut, since: time.Now()}
	}
	defer op.progress.clear()
	return c.run(op, o, args)
}

// terminal says whether a stream is one.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// A progress is a line on a terminal that says how far a command is, from its second
// second on. The zero progress says nothing.
type progress struct {
	out   io.Writer
	since time.Time
	shown bool
}

func (p *progress) show(what string, done, of uint64) {
	if p.out == nil || time.Since(p.since) < time.Second {
		return
	}
	p.shown = true
	_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s: %d of %d", what, done, of)
}

// clear takes the line away.
func (p *progress) clear() {
	if p.shown {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

// dial connects as the operator, and does not wait for a server that is not there.
func dial(cfg Config) (jetstream.JetStream, error) {
	urls := cfg.URL
	if urls == "" {
		urls = defaultURL
	}
	parts := strings.Split(urls, ",")
	for i, p := range parts {
		u, err := url.Parse(strings.TrimSpace(p))
		if err != nil {
			return nil, errors.New("NATS_URL: not a URL such as nats://user:pass@host:4222")
		}
		u.User = nil // that of the consumers
		parts[i] = u.String()
	}
	urls = strings.Join(parts, ",")
	opts := append([]nats.Option{nats.Name("operator"), nats.Timeout(5 * time.Second), nats.MaxReconnects(5)}, cfg.Auth("operator", cfg.OperatorPassword, urls)...)
	if cfg.Creds != "" {
		opts = append(opts, nats.UserCredentials(cfg.Creds))
	}
	nc, err := nats.Connect(urls, opts...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS as operator: %w (is the edge or the server running, and NATS_OPERATOR_PASSWORD right?)", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("setting up JetStream: %w", err)
	}
	return js, nil
}

// ask puts a question that only "y" or "yes", "o" or "oui" answers. Where nobody can be
// asked it has to be answered by --yes.
func (op *operator) ask(question string, yes bool) error {
	if yes {
		return nil
	}
	if !op.tty {
		return errors.New("nobody to ask: say --yes")
	}
	_, _ = fmt.Fprintf(op.out, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(op.in, &answer)
	if !slices.Contains([]string{"y", "yes", "o", "oui"}, strings.ToLower(strings.TrimSpace(answer))) {
		return errors.New("not done")
	}
	return nil
}
