package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"leadpipe/contracts"
	"leadpipe/internal/sandbox"
)

// The same seed is the same plan, whenever it is made.
func TestSeedIsPlan(t *testing.T) {
	t.Parallel()
	plan := func(seed uint64) (deliveries, blows string) {
		p := newPlan(seed, 50, time.Minute, time.Second, 10*time.Second, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
		for _, d := range p.deliveries {
			deliveries += fmt.Sprintln(d.at, d.again, d.impatient, d.what, d.ids, string(d.body), d.inbound)
		}
		return deliveries, fmt.Sprint(p.blows)
	}
	deliveries, blows := plan(7)
	if d, b := plan(7); d != deliveries || b != blows {
		t.Error("the same seed, another plan")
	}
	if d, b := plan(8); d == deliveries || b == blows {
		t.Error("another seed, the same plan")
	}
}

// TestCheckerSees does by hand what faults of the programs would do, and the checker
// tells of each.
func TestCheckerSees(t *testing.T) {
	t.Parallel()
	p := newPlan(2, 12, time.Second, 0, 0, time.Now())
	p.patient()
	w := start(t, settings{nodes: 1, seed: 2, call: 1500 * time.Millisecond, unreachable: p.unreachable})
	for _, who := range p.people {
		w.meta.AddLead(who.form)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	send := newSender(w)
	if err := send.send(ctx, p, time.Now()); err != nil {
		t.Fatal(err)
	}
	if found, err := w.rest(ctx, p, send.ledger, t.Output()); err != nil || len(found) > 0 {
		t.Fatalf("before anything is wrong: %v, %v", found, err)
	}
	w.end() // so that nobody mends it
	server := w.procs["server-1"]
	if err := server.start(); err != nil {
		t.Fatal(err)
	}

	stopped := p.people[slices.IndexFunc(p.people, func(p *person) bool { return p.stops })]
	welcomed := p.people[slices.IndexFunc(p.people, func(p *person) bool { return !p.stops && !p.buys })]
	buyer := p.people[slices.IndexFunc(p.people, func(p *person) bool { return p.buys && !p.stops })]
	var event *delivery
	for _, d := range buyer.deliveries {
		if d.what == "invoice.paid" {
			event = d
		}
	}
	bucket := func(key string) string { return contracts.SubjectOfKey(key) }
	publish := func(subject string, data []byte, headers ...string) func() error {
		return func() error {
			m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}
			for i := 0; i < len(headers); i += 2 {
				m.Header.Set(headers[i], headers[i+1])
			}
			_, err := w.js.PublishMsg(ctx, m)
			return err
		}
	}
	text := func(to, body string) func() error {
		return func() error {
			form := url.Values{"To": {to}, "Body": {body}, "MessagingServiceSid": {sandbox.TwilioService}}
			req := httptest.NewRequest(http.MethodPost, "/2010-04-01/Accounts/"+sandbox.TwilioAccount+"/Messages.json", strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(sandbox.TwilioAccount, sandbox.TwilioToken)
			w.twilio.ServeHTTP(httptest.NewRecorder(), req) // which may refuse: the call has been made all the same
			return nil
		}
	}
	lead, err := json.Marshal(contracts.Lead{ID: welcomed.lead, Name: welcomed.name, Email: welcomed.email, Phone: welcomed.phone, Status: contracts.LeadClient})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fault string
		do    func() error
		kind  string
		says  string
	}{
		{"a record is gone", publish(bucket(contracts.KeyCustomer(buyer.customer)), nil, "KV-Operation", "DEL"), lost, "no record " + contracts.KeyCustomer(buyer.customer)},
		{"a record is wrong", publish(bucket(contracts.KeyLead(welcomed.lead)), lead), wrong, "lead.status is client, should be contacted"},
		{"a record is nobody's", publish(bucket("lead.1"), []byte("{}")), wrong, "lead.1 is nobody's"},
		{"an event twice", publish("webhooks.stripe.invoice.paid", event.body, contracts.HeaderSource, "stripe", contracts.HeaderID, "evt_x"), wrong, "which nobody sent"},
		{"an event twice under two ids", publish("webhooks.stripe.invoice.paid", event.body, contracts.HeaderSource, "stripe", contracts.HeaderID, "evt_x"), twice, "in the stream twice"},
		{"a webhook is gone", func() error {
			s, err := w.js.Stream(ctx, contracts.StreamWebhooks)
			if err != nil {
				return err
			}
			return s.DeleteMsg(ctx, 3)
		}, lost, "was acknowledged and is not in the stream"},
		{"a text twice", text(welcomed.phone, "Bienvenue "+welcomed.name), twice, "2 times"},
		{"a text that nobody owes", text(welcomed.phone, "Achetez"), wrong, "that nobody owes"},
		{"a text after STOP", text(stopped.phone, "Bienvenue "+stopped.name), afterStop, "after the STOP was answered"},
		{"a row twice", func() error {
			rows := w.google.Rows("Leads")
			return w.google.SetCell("Leads", len(rows), 1, rows[1][0])
		}, twice, "Leads has two rows"},
		{"a cell is wrong", func() error { return w.google.SetCell("Clients", 2, 6, "ami") }, wrong, "the row's status in Clients is ami"},
		{"a program ends", func() error { w.fault("edge", "ended by itself"); return nil }, wrong, "edge ended by itself"},
	} {
		if err := patiently(ctx, func(context.Context) error { return c.do() }); err != nil {
			t.Fatalf("%s: %v", c.fault, err)
		}
		var found []Violation
		if err := patiently(ctx, func(ctx context.Context) (err error) {
			found, err = check(ctx, w, p, send.ledger)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(found, func(v Violation) bool { return v.Kind == c.kind && strings.Contains(v.What, c.says) }) {
			t.Errorf("%s: not told as %q with %q: %v", c.fault, c.kind, c.says, found)
		}
	}
}
