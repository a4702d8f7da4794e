package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/sandbox"
	"leadpipe/internal/serverconf"
	"leadpipe/internal/webhook/stripe"
)

// Options say what is measured and for how long.
type Options struct {
	Bin    string        // where the two programs are
	Conf   string        // nats.conf
	Dir    string        // for stores and logs, on the disk that is to be measured
	Length time.Duration // of each measurement
	Fold   int           // events of billing's backlog
	Log    func(string)  // is told what begins

	Waiting int           // callers that wait for a server that does not answer
	Timeout time.Duration // PUBLISH_TIMEOUT of the edge, which is how long they wait; 0: its default
}

// Full is a full run: about three minutes.
func Full() Options { return Options{Length: 3 * time.Second, Fold: 20_000, Waiting: 4096} }

const (
	webhookBytes = 2600
	// inBatch is how many messages an atomic batch has.
	inBatch = 100
)

// A run is one run's programs, and what was measured so far.
type run struct {
	Options
	report  Report
	source  *source
	server  *program
	edge    *program
	addr    string // of the edge
	servers []serverconf.Node
	js      jetstream.JetStream
}

// Run measures everything.
func Run(ctx context.Context, o Options) (r Report, err error) {
	if o.Bin, err = filepath.Abs(o.Bin); err != nil { // each program runs in a directory of its own
		return r, fmt.Errorf("finding the programs: %w", err)
	}
	m := &run{Options: o, source: newSource(webhookBytes)}
	_, body := m.source.webhook()
	m.report = Report{Date: time.Now().UTC().Truncate(time.Second), Machine: machine(), Go: runtime.Version(), Bytes: len(body),
		Callers: map[int]AtOnce{}, Memory: map[string]Sizes{}, Binary: map[string]int64{}}
	for _, name := range []string{"edge", "consumers"} {
		info, err := os.Stat(filepath.Join(o.Bin, name))
		if err != nil {
			return r, fmt.Errorf("make build comes first: %w", err)
		}
		m.report.Binary[name] = info.Size()
	}
	defer func() { m.edge.end(); m.server.end() }()
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"the disk", m.disk}, {"starting", m.start}, {"raw publish and the edge", m.publish}, {"raw batches", m.batches},
		{"HTTP and signature alone", m.verify}, {"callers that wait", m.hang}, {"billing's backlog", m.folds},
	} {
		o.Log(step.what)
		if err := step.do(ctx); err != nil {
			return r, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return m.report, nil
}

// machine is what the figures were measured on, as far as the system tells.
func machine() string {
	cpu := "an unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, found := strings.Cut(string(info), "model name"); found {
			line, _, _ := strings.Cut(after, "\n")
			cpu = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	return fmt.Sprintf("%d cores of %s, %s/%s", runtime.NumCPU(), cpu, runtime.GOOS, runtime.GOARCH)
}

// disk writes and syncs one record after another.
func (m *run) disk(context.Context) error {
	f, err := os.Create(filepath.Join(m.Dir, "records"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	record, n, start := make([]byte, webhookBytes), 0, time.Now()
	for ; time.Since(start) < m.Length; n++ {
		if _, err := f.Write(record); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	m.report.Fsyncs = float64(n) / time.Since(start).Seconds()
	return nil
}

// start starts the server, which is that of an edge that nobody asks, and the edge that
// is measured.
func (m *run) start(context.Context) error {
	addrs, err := free(2)
	if err != nil {
		return err
	}
	edge := filepath.Join(m.Bin, "edge")
	if m.servers, err = serverconf.Write(m.Conf, m.Dir, 1); err != nil {
		return err
	}
	if m.server, err = startEdge(edge, filepath.Join(m.Dir, "server"), addrs[0], "NATS_CONF="+m.servers[0].Conf, "NATS_STORE_DIR="+filepath.Join(m.Dir, "store")); err != nil {
		return err
	}
	m.addr = addrs[1]
	env := []string{"NATS_URL=" + serverconf.URL(m.servers, "edge")}
	if m.Timeout > 0 {
		env = append(env, "PUBLISH_TIMEOUT="+m.Timeout.String())
	}
	if m.edge, err = startEdge(edge, filepath.Join(m.Dir, "edge"), m.addr, env...); err != nil {
		return err
	}
	if m.js, err = m.connect("edge"); err != nil {
		return err
	}
	m.server.atRest()
	m.edge.atRest()
	return nil
}

func (m *run) connect(user string) (jetstream.JetStream, error) {
	nc, err := nats.Connect(serverconf.URL(m.servers, user), nats.CustomInboxPrefix(bus.InboxPrefix(user)))
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	return jetstream.New(nc) // until the end of the program
}

// publish measures the edge and raw publish in turn, so that a slow moment of the machine
// meets both.
func (m *run) publish(ctx context.Context) error {
	raw := func() (func() error, func(), error) {
		return func() error {
			id, body := m.source.webhook()
			_, err := m.js.PublishMsg(ctx, m.message(id, body))
			return err
		}, func() {}, nil
	}
	m.edge.again()
	m.server.again()
	before, ids := m.server.resident(), m.source.next.Load()
	for _, n := range callers {
		var c AtOnce
		for _, half := range []struct {
			to     *Rate
			caller func() (func() error, func(), error)
		}{{&c.Raw, raw}, {&c.Edge, m.source.post(m.addr)}} {
			var err error
			if *half.to, err = measure(ctx, n, m.Length, half.caller); err != nil {
				return fmt.Errorf("%d callers: %w", n, err)
			}
		}
		m.report.Callers[n] = c
	}
	time.Sleep(time.Second)
	m.report.PerID = max(0, m.server.resident()-before) * 1e6 / float64(m.source.next.Load()-ids)
	m.report.Memory["edge"], m.report.Memory["server"] = m.edge.sizes(), m.server.sizes()
	return nil
}

func (m *run) message(id string, body []byte) *nats.Msg {
	msg := nats.NewMsg(contracts.SubjectStripe("invoice.payment_failed"))
	msg.Data = body
	msg.Header.Set(jetstream.MsgIDHeader, contracts.MessageIDStripe(id))
	return msg
}

// batch publishes n webhooks in one atomic batch.
func (m *run) batch(ctx context.Context, n int) error {
	msgs := make([]*nats.Msg, n)
	for i := range msgs {
		msgs[i] = m.message(m.source.webhook())
	}
	_, err := jetstreamext.PublishMsgBatch(ctx, m.js, msgs, jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: 10 * time.Second})
	return err
}

// batches publishes atomic batches from four callers.
func (m *run) batches(ctx context.Context) error {
	rate, err := measure(ctx, 4, m.Length, func() (func() error, func(), error) {
		return func() error { return m.batch(ctx, inBatch) }, func() {}, nil
	})
	m.report.Batches = rate.PerSecond * inBatch
	return err
}

// verify measures a handler that reads a webhook, verifies it and answers.
func (m *run) verify(ctx context.Context) error {
	v, err := stripe.New([]string{sandbox.StripeSecret}, 5*time.Minute)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = v.Messages(body, r.Header.Get("Stripe-Signature"), time.Now())
		}
		if err != nil {
			w.WriteHeader(http.StatusForbidden)
		}
	})}
	go func() { _ = srv.Serve(l) }() // ends with Close
	defer func() { _ = srv.Close() }()
	for _, n := range callers {
		c := m.report.Callers[n]
		if c.Verify, err = measure(ctx, n, m.Length, m.source.post(l.Addr().String())); err != nil {
			return err
		}
		m.report.Callers[n] = c
	}
	return nil
}

// hang has callers wait for a server that does not answer, until the edge has refused
// them all.
func (m *run) hang(context.Context) error {
	if err := m.server.freeze(); err != nil {
		return err
	}
	m.edge.again()
	var all sync.WaitGroup
	for range m.Waiting {
		all.Go(func() {
			conn, err := net.Dial("tcp", m.addr)
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			_, body := m.source.webhook()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := conn.Write(request(m.addr, body)); err == nil {
				_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1)) // whatever it is
			}
		})
	}
	all.Wait()
	m.report.Waiting, m.report.Hung = m.Waiting, m.edge.sizes().Load
	if err := m.server.goOn(); err != nil {
		return err
	}
	return answers("http://" + m.addr + "/readyz")
}

// folds measures how fast one process of billing works off a backlog: over a bucket that
// is empty, and over one with ten times the records that the first backlog made.
func (m *run) folds(ctx context.Context) (err error) {
	m.edge.end()
	m.edge = nil
	operator, err := m.connect("operator")
	if err != nil {
		return err
	}
	stream, err := operator.Stream(ctx, contracts.StreamWebhooks)
	if err != nil {
		return err
	}
	// No consumers have run yet: the backlog begins anew, with some events of each customer.
	if err := stream.Purge(ctx); err != nil {
		return err
	}
	m.report.Folded = m.Fold
	var sizes Sizes
	if m.report.Fold, sizes, err = m.workOff(ctx, stream, m.Fold); err != nil {
		return err
	}
	m.report.Memory["consumers"] = sizes
	each := m.source.each
	m.source.each = 1
	if _, _, err = m.workOff(ctx, stream, 9*m.Fold/int(each)); err != nil {
		return err
	}
	m.source.each = each
	m.report.FoldLarge, _, err = m.workOff(ctx, stream, m.Fold)
	return err
}

// workOff publishes events and measures how fast a process of billing works them off.
func (m *run) workOff(ctx context.Context, stream jetstream.Stream, events int) (perSecond float64, sizes Sizes, err error) {
	for left := events; left > 0; left -= inBatch {
		if err := m.batch(ctx, min(left, inBatch)); err != nil {
			return 0, sizes, fmt.Errorf("publishing a backlog: %w", err)
		}
	}
	var before uint64
	if c, err := stream.Consumer(ctx, contracts.Billing); err == nil { // it ran before
		before = c.CachedInfo().Delivered.Consumer
	}
	addrs, err := free(1)
	if err != nil {
		return 0, sizes, err
	}
	p, err := start(filepath.Join(m.Bin, "consumers"), filepath.Join(m.Dir, "consumers"), []string{contracts.Billing}, "NATS_URL="+serverconf.URL(m.servers, "consumers"), "METRICS_ADDR="+addrs[0], "CONSOLE_ADDR=")
	if err != nil {
		return 0, sizes, err
	}
	defer p.end()
	var began time.Time // the start of the program is not its rate
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		c, err := stream.Consumer(ctx, contracts.Billing)
		if err != nil || c.CachedInfo().Delivered.Consumer == before {
			continue
		}
		if began.IsZero() {
			began = time.Now()
		}
		if c.CachedInfo().NumPending == 0 && c.CachedInfo().NumAckPending == 0 {
			perSecond, sizes.Load = float64(events)/time.Since(began).Seconds(), p.sizes().Load
			p.atRest()
			sizes.Rest = p.sizes().Rest
			return perSecond, sizes, nil
		}
	}
	return 0, sizes, errors.New("the backlog is not worked off")
}
