package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/freeport"
	"leadpipe/internal/serverconf"
)

// ClusterOptions say where a cluster runs.
type ClusterOptions struct {
	Conf string    // nats.conf, of which each server gets a copy with ports of its own
	Dir  string    // for logs and stores
	Out  io.Writer // where things are, and how it goes
}

// Cluster runs three NATS servers, the edge, consumers and the stand-ins, with the traffic
// of a small town, until ctx ends. A program that somebody kills is started again after
// a moment.
func Cluster(ctx context.Context, o ClusterOptions) error {
	port, err := freeport.Port()
	if err != nil {
		return err
	}
	p := newPlan(uint64(time.Now().UnixNano()), 2000, time.Hour, 0, 0, time.Now())
	p.patient()
	w, err := newWorld(ctx, settings{dir: o.Dir, conf: o.Conf, nodes: 3, console: fmt.Sprint("127.0.0.1:", port), unreachable: p.unreachable})
	defer w.close()
	if err != nil {
		return err
	}
	for _, who := range p.people {
		w.meta.AddLead(who.form)
	}
	w.print(o)
	send := newSender(w)
	sending, stop := context.WithCancel(ctx)
	sent := make(chan error, 1)
	go func() { sent <- send.send(sending, p, time.Now()) }()
	w.watch(ctx, send.ledger, o.Out)
	stop()
	<-sent // how far it came is nobody's concern
	fmt.Fprintln(o.Out, "Ending all programs.")
	w.end()
	return nil
}

// print says where things are.
func (w *world) print(o ClusterOptions) {
	fmt.Fprintf(o.Out, "The cluster runs, with some webhooks a second.\n")
	for _, n := range w.servers {
		fmt.Fprintf(o.Out, "  %-12s nats://127.0.0.1:%d, monitoring http://127.0.0.1:%d, process %d\n", n.Name, n.Port, n.Monitor, w.procs[n.Name].pid())
	}
	fmt.Fprintf(o.Out, "  %-12s %s, process %d\n", "edge", w.edgeURL, w.procs["edge"].pid())
	for i, durables := range work {
		name := fmt.Sprint("consumers-", i+1)
		fmt.Fprintf(o.Out, "  %-12s %s, process %d\n", name, durables, w.procs[name].pid())
	}
	fmt.Fprintf(o.Out, "  %-12s http://%s\n  %-12s nats --server %s stream report\n  %-12s %s\n", "console", w.console, "look", serverconf.URL(w.servers, "operator"), "logs", w.dir)
	fmt.Fprintln(o.Out, "Kill what you like, with kill -9 and a process: it is started again after 5 s. Ctrl-C ends all.")
}

// watch starts again what ended, and says how it goes, until ctx ends.
func (w *world) watch(ctx context.Context, l *ledger, out io.Writer) {
	said := 0
	for tick := 0; ; tick++ {
		if sleep(ctx, 5*time.Second) != nil {
			return
		}
		for _, name := range w.names {
			if p := w.procs[name]; p.pid() == 0 {
				if err := p.start(); err != nil {
					w.fault(name, err.Error())
				}
				fmt.Fprintf(out, "%s is started again, process %d\n", name, p.pid())
			}
		}
		for told := w.faults(); said < len(told); said++ {
			fmt.Fprintln(out, told[said])
		}
		if tick%6 == 1 {
			answers, longest := l.summary()
			fmt.Fprintf(out, "%s  answers to webhooks %v (0: none), longest wait %s\n", time.Now().Format(time.TimeOnly), answers, longest.Round(time.Millisecond))
		}
	}
}

// patient makes providers wait for their answers, so that each answer counts.
func (p *plan) patient() {
	for _, d := range p.deliveries {
		d.impatient = false
	}
}

// leaderOf names the server that leads a stream, or with a durable that durable.
func (w *world) leaderOf(ctx context.Context, stream, durable string) (name string, err error) {
	err = patiently(ctx, func(ctx context.Context) error {
		var cluster *jetstream.ClusterInfo
		if durable == "" {
			s, err := w.js.Stream(ctx, stream)
			if err != nil {
				return fmt.Errorf("asking who leads %s: %w", stream, err)
			}
			cluster = s.CachedInfo().Cluster
		} else {
			c, err := w.js.Consumer(ctx, stream, durable)
			if err != nil {
				return fmt.Errorf("asking who leads %s: %w", durable, err)
			}
			cluster = c.CachedInfo().Cluster
		}
		if cluster == nil || w.procs[cluster.Leader] == nil {
			return errors.New("nobody leads " + stream + " " + durable)
		}
		name = cluster.Leader
		return nil
	})
	return name, err
}

// healthy says what keeps the cluster from losing a server: one that is down, or behind.
func (w *world) healthy(ctx context.Context) error {
	for _, n := range w.servers {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/healthz", n.Monitor), nil)
		if err != nil {
			return fmt.Errorf("asking %s: %w", n.Name, err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("asking %s: %w", n.Name, err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %d", n.Name, res.StatusCode)
		}
	}
	for _, name := range []string{contracts.StreamWebhooks, contracts.StreamCRM} {
		s, err := w.js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("asking for %s: %w", name, err)
		}
		for _, r := range s.CachedInfo().Cluster.Replicas {
			if r.Offline || !r.Current {
				return fmt.Errorf("%s is behind in %s", r.Name, name)
			}
		}
	}
	return nil
}

// awaitHealthy waits until the cluster can lose a server.
func (w *world) awaitHealthy(ctx context.Context) error { return patiently(ctx, w.healthy) }
