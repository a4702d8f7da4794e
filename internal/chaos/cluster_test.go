package chaos

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/natstest"
)

// TestClusterLosesServers: leaders are killed and servers are restarted one after the
// other, and no provider is told to come again. STRESS=1 kills the leader of each stream
// and durable, and then restarts each server.
func TestClusterLosesServers(t *testing.T) {
	t.Parallel()
	stress := os.Getenv("STRESS") != ""
	length, people := 6*time.Second, 40
	leaders := [][2]string{{contracts.StreamWebhooks, ""}}
	if stress {
		length, people = 150*time.Second, 1000
		leaders = append([][2]string{{contracts.StreamWebhooks, ""}, {contracts.StreamCRM, ""}}, durables...)
	}
	p := newPlan(1, people, length, 0, 0, time.Now())
	p.patient()
	w := start(t, settings{nodes: 3, seed: 1, call: 1500 * time.Millisecond, unreachable: p.unreachable})
	if err := w.quickRedelivery(t.Context(), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, who := range p.people {
		w.meta.AddLead(who.form)
	}
	if err := w.awaitHealthy(t.Context()); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), length+3*time.Minute)
	defer cancel()
	send, begin := newSender(w), time.Now()
	sent := make(chan error, 1)
	go func() { sent <- send.send(ctx, p, begin) }()
	time.Sleep(500 * time.Millisecond) // some traffic before
	for _, l := range leaders {
		name, err := w.leaderOf(ctx, l[0], l[1])
		if err != nil {
			t.Fatal(err)
		}
		w.procs[name].kill()
		t.Logf("%5.1fs killed %s, the leader of %s", time.Since(begin).Seconds(), name, strings.Join(l[:], " "))
		if stress {
			time.Sleep(3 * time.Second) // longer than a server needs to come back
		}
		w.again(ctx, t, name)
	}
	if stress {
		for _, n := range w.servers {
			w.procs[n.Name].terminate()
			w.again(ctx, t, n.Name)
			t.Logf("%5.1fs restarted %s", time.Since(begin).Seconds(), n.Name)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	found, err := w.rest(ctx, p, send.ledger, t.Output())
	if err != nil {
		t.Error(err)
	}
	if r := (Result{Violations: found}); len(found) > 0 {
		t.Errorf("logs in %s\n%s", w.dir, r.Report())
	}
	answers, longest := send.ledger.summary()
	if len(answers) != 1 || answers[200] == 0 {
		t.Errorf("answers %v, should be 200 alone", answers)
	}
	t.Logf("%d of %d webhooks answered 200, longest wait %s", answers[200], answers[200], longest.Round(time.Millisecond))
	w.end()
	for _, what := range w.faults() {
		t.Error(what)
	}
}

func (w *world) again(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	if err := w.procs[name].start(); err != nil {
		t.Fatal(err)
	}
	if err := w.awaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
}

// start starts a world that ends with the test.
func start(t *testing.T, s settings) *world {
	t.Helper()
	s.conf, s.dir = natstest.Root(t, "nats.conf"), keep(t)
	w, err := newWorld(t.Context(), s)
	t.Cleanup(w.close)
	if err != nil {
		t.Fatalf("%v; logs in %s", err, s.dir)
	}
	return w
}
