package trace_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/incident"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/sandbox"
	"leadpipe/internal/state"
	"leadpipe/internal/trace"
)

func find(t *testing.T, js jetstream.JetStream, id string) trace.Story {
	t.Helper()
	s, err := trace.Find(t.Context(), js, id, trace.Options{Region: "FR"})
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	if !slices.IsSortedFunc(s.Steps, func(a, b trace.Step) int { return a.At.Compare(b.At) }) {
		t.Errorf("%s: not in the order of time", id)
	}
	return s
}

func titles(s trace.Story) (out []string) {
	for _, x := range s.Steps {
		out = append(out, x.Title)
	}
	return out
}

// TestStoryOfThePersonOfTheExamples asks about each thing in the story that make demo
// tells, as a person would, and expects what README says of it.
func TestStoryOfThePersonOfTheExamples(t *testing.T) {
	t.Parallel()
	s, err := sandbox.Start(t.Context(), sandbox.Options{Dir: t.TempDir(), NATSConf: natstest.Root(t, "nats.conf"), NATSPort: -1,
		EdgeAddr: "127.0.0.1:0", Latency: 5 * time.Millisecond, Hurry: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	var out bytes.Buffer
	if err := s.Demo(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	nc, err := nats.Connect(s.NATS.UserURL("consumers"), nats.CustomInboxPrefix("_INBOX.consumers"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	denied := make(chan error, 10)
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err })
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}

	const (
		form, bought = "Meta leadgen", "Stripe checkout.session.completed"
		failed       = "Stripe invoice.payment_failed"
		ended        = "Stripe customer.subscription.deleted"
		stop         = "STOP received"
		welcome      = "welcome text sent"
		dunning      = "payment_failed text sent"
		confirmation = "optout_confirmation text sent"
		lead, client = "lead.1234567890123456", "customer.cus_LeadpipeDemo01"
		optout       = "optout.33639980102"
	)
	whole := []string{form, bought, failed, ended, stop, welcome, dunning, confirmation, lead, client, optout}
	payment := []string{failed, dunning, client}
	sid := ""
	for _, x := range find(t, js, "1234567890123456").Steps {
		if x.Title == welcome {
			sid = x.Detail
		}
	}
	for id, want := range map[string]struct {
		kind trace.Kind
		has  []string
		not  []string
	}{
		"06 39 98 01 02":                     {trace.Phone, whole, nil},
		"33639980102":                        {trace.Phone, whole, nil},
		"Camille@Example.com":                {trace.Email, whole, nil},
		"1234567890123456":                   {trace.Lead, whole, nil},
		"cus_LeadpipeDemo01":                 {trace.Customer, whole, nil},
		"in_1LpDemo00000000000000002":        {trace.Invoice, payment, []string{form, bought, welcome}},
		"evt_1LpDemo00000000000000005":       {trace.Event, payment, []string{form, ended, bought, welcome}},
		sid:                                  {trace.Text, []string{form, welcome, "Twilio says delivered", lead}, []string{failed, dunning}},
		"SM00000000000000000000000000000101": {trace.Text, []string{stop, confirmation, optout}, []string{form, welcome}},
	} {
		t.Run(string(want.kind)+" "+id, func(t *testing.T) {
			story := find(t, js, id)
			got := titles(story)
			if story.Kind != want.kind {
				t.Errorf("taken for a %s", story.Kind)
			}
			for _, w := range want.has {
				if !slices.Contains(got, w) {
					t.Errorf("lacks %s: %q", w, got)
				}
			}
			for _, w := range want.not {
				if slices.Contains(got, w) {
					t.Errorf("has %s: %q", w, got)
				}
			}
		})
	}
	nc.Flush()
	select {
	case err := <-denied:
		t.Errorf("the user consumers may not: %v", err)
	default:
	}
}

func TestWhatIsNoID(t *testing.T) {
	t.Parallel()
	js := natstest.New(t, natstest.LazySync).JetStream("consumers")
	for _, id := range []string{"", "hello", "cus_>", "*", "a b@example.com", "$KV"} {
		if _, err := trace.Find(t.Context(), js, id, trace.Options{Region: "FR"}); !errors.Is(err, trace.ErrNoID) {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"+33639980199", "nobody@example.com", "9234567890123456", "cus_1", "sub_1", "in_1", "evt_1", "SM00000000000000000000000000000999"} {
		if s := find(t, js, id); len(s.Steps) > 0 {
			t.Errorf("%q has a story: %q", id, titles(s))
		}
	}
}

// TestIncidents: those that are about a person's webhooks and records, alone and as one
// of many.
func TestIncidents(t *testing.T) {
	t.Parallel()
	s := natstest.New(t, natstest.LazySync)
	edge, js := s.JetStream("edge"), s.JetStream("consumers")
	store := state.New(js, nil)
	var bad []contracts.Message
	for i := range 120 {
		m := nats.NewMsg(contracts.SubjectStripe("invoice.paid"))
		m.Data = fmt.Appendf(nil, `{"id":"evt_%d","data":{"object":{"id":"in_%d","customer":"cus_%d"}}}`, i, i, i)
		m.Header.Set(jetstream.MsgIDHeader, contracts.MessageIDStripe(fmt.Sprintf("evt_%d", i)))
		ack, err := edge.PublishMsg(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		bad = append(bad, contracts.Message{Stream: contracts.StreamWebhooks, Subject: m.Subject, Sequence: ack.Sequence, Time: time.Now()})
	}
	for _, m := range bad {
		o := outcome.Of(outcome.Permanentf(outcome.Malformed, "not readable"))
		if err := store.Update(t.Context(), func(tx *state.Tx) error { return incident.Failed(tx, contracts.Billing, m, o) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct{ id, incident string }{{"evt_3", "incident billing-4"}, {"cus_3", "incident billing-4"}, {"in_110", "incident billing-many-message-malformed"}} {
		if got := titles(find(t, js, x.id)); !slices.Contains(got, x.incident) {
			t.Errorf("%s lacks %s: %q", x.id, x.incident, got)
		}
	}
	if got := titles(find(t, js, "evt_3")); len(got) != 2 {
		t.Errorf("others' incidents too: %q", got)
	}
	if err := store.Update(t.Context(), func(tx *state.Tx) error { return incident.Succeeded(tx, contracts.Billing, bad[3], time.Now()) }); err != nil {
		t.Fatal(err)
	}
	if got := titles(find(t, js, "evt_3")); !slices.Contains(got, "incident billing-4 closed") {
		t.Errorf("not closed: %q", got)
	}
}

// TestBigStream finds one customer among many messages of 2.5 KB, which it has to read.
// STRESS=1 makes it 100,000.
func TestBigStream(t *testing.T) {
	t.Parallel()
	n := 3000
	if os.Getenv("STRESS") != "" {
		n = 100_000
	}
	s := natstest.New(t, natstest.LazySync)
	edge, js := s.JetStream("edge"), s.JetStream("consumers")
	filler := strings.Repeat("x", 2400)
	for i := range n {
		body := fmt.Appendf(nil, `{"id":"evt_%d","data":{"object":{"id":"in_%d","customer":"cus_%d","description":"%s"}}}`, i, i, i%(n/3), filler)
		_, err := edge.PublishAsync(contracts.SubjectStripe("invoice.paid"), body, jetstream.WithMsgID(contracts.MessageIDStripe(fmt.Sprintf("evt_%d", i))), jetstream.WithStallWait(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
	}
	<-edge.PublishAsyncComplete()
	start := time.Now()
	if got := titles(find(t, js, fmt.Sprintf("cus_%d", 7))); len(got) != 3 {
		t.Errorf("%d steps, not 3", len(got))
	}
	t.Logf("%d messages looked through in %v", n, time.Since(start).Round(time.Millisecond))
}
