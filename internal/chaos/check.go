package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/sandbox/twilio"
)

// The four kinds of a violation.
const (
	lost      = "lost"
	twice     = "twice"
	wrong     = "wrong"
	afterStop = "after STOP"
)

// A Violation is something that a person would complain about.
type Violation struct {
	Kind string // "lost", "twice", "wrong" or "after STOP"
	What string
	// About are what the complaint rests on: webhooks, records, texts.
	About []string
}

// A checker compares what is there with what should be.
type checker struct {
	w       *world
	plan    *plan
	ledger  *ledger
	records map[string]json.RawMessage
	stored  map[string]int // messages of WEBHOOKS by id
	found   []Violation
	who     map[string]*person // by phone
	texts   map[string][]twilio.Message
}

// check looks at everything once. An error says that it could not look.
func check(ctx context.Context, w *world, p *plan, l *ledger) ([]Violation, error) {
	c := &checker{w: w, plan: p, ledger: l, records: map[string]json.RawMessage{}, stored: map[string]int{}, who: map[string]*person{}, texts: map[string][]twilio.Message{}}
	for _, who := range p.people {
		c.who[who.phone] = who
	}
	if err := c.stream(ctx); err != nil {
		return nil, err
	}
	if err := bus.Scan(ctx, w.js, func(string) bool { return true }, func(m contracts.Message) error {
		if m.Data != nil {
			c.records[contracts.KeyOfSubject(m.Subject)] = m.Data
		}
		return nil
	}); err != nil {
		return nil, err
	}
	c.phones()
	for _, who := range p.people {
		c.person(who)
	}
	c.keys()
	c.sheet()
	c.incidents()
	for _, what := range w.faults() {
		c.add(wrong, nil, "%s", what)
	}
	l.mu.Lock()
	refused := slices.Clone(l.refused)
	l.mu.Unlock()
	for _, what := range refused {
		c.add(wrong, nil, "%s", what)
	}
	return c.found, nil
}

func (c *checker) add(kind string, who *person, format string, args ...any) {
	v := Violation{Kind: kind, What: fmt.Sprintf(format, args...)}
	if who != nil {
		v.About = c.story(who)
	}
	c.found = append(c.found, v)
}

// stream: every acknowledged webhook is there, once, as it was sent; and nothing that
// nobody sent.
func (c *checker) stream(ctx context.Context) error {
	bodies, known := map[string][]byte{}, map[string]*person{}
	for _, d := range c.plan.deliveries {
		for i, id := range d.ids {
			known[id] = d.who[i]
			if d.path == "/api/webhooks/stripe" {
				bodies[id] = d.body
			}
		}
	}
	// Whoever sent it names it so: https://github.com/cloudevents/spec says that source
	// and id together tell one event from another.
	named := map[string]int{}
	told := map[string]bool{}
	for _, cb := range c.w.twilio.Callbacks() {
		told[contracts.MessageIDStatus(cb.MessageSID, cb.Status)] = cb.Answer == 200 || told[contracts.MessageIDStatus(cb.MessageSID, cb.Status)]
	}
	err := bus.Messages(ctx, c.w.js, bus.Range{Stream: contracts.StreamWebhooks}, func(m contracts.Message, _ uint64) error {
		c.stored[m.ID]++
		who := known[m.ID]
		_, status := told[m.ID]
		name := m.Header[contracts.HeaderSource] + " " + m.Header[contracts.HeaderID]
		if named[name]++; named[name] == 2 {
			c.add(twice, who, "the event %s is in the stream twice, the second time as message %d", name, m.Sequence)
		}
		switch body := bodies[m.ID]; {
		case who == nil && !status:
			c.add(wrong, nil, "message %d of WEBHOOKS is %q, which nobody sent", m.Sequence, m.ID)
		case body != nil && !bytes.Equal(body, m.Data):
			c.add(wrong, who, "webhook %s was changed on its way", m.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range c.plan.deliveries {
		if _, ok := c.ledger.ack(d); !ok {
			continue
		}
		for i, id := range d.ids {
			if c.stored[id] == 0 {
				c.add(lost, d.who[i], "webhook %s (%s) was acknowledged and is not in the stream", id, d.what)
			}
		}
	}
	for id, acked := range told {
		if acked && c.stored[id] == 0 {
			c.add(lost, nil, "status %s was acknowledged and is not in the stream", id)
		}
	}
	return nil
}

// phones: what rang, and when.
func (c *checker) phones() {
	for _, m := range c.w.twilio.Messages() {
		c.texts[m.To] = append(c.texts[m.To], m)
		if c.who[m.To] == nil {
			c.add(wrong, nil, "a text went to %s, which is nobody's number: %q", m.To, m.Body)
		}
	}
	for _, m := range c.w.twilio.Replies() {
		c.add(wrong, c.who[m.To], "Twilio itself answered %s: %q", m.To, m.Body)
	}
	stopped := map[string]time.Time{}
	for _, d := range c.plan.deliveries {
		if at, ok := c.ledger.ack(d); ok && d.stop {
			stopped[d.who[0].phone] = at
		}
	}
	for _, call := range c.w.twilio.Calls() {
		if at, ok := stopped[call.To]; ok && call.Body != stoppedText && call.Began.After(at) {
			c.add(afterStop, c.who[call.To], "%s: a call to Twilio with %q began %s after the STOP was answered", call.To, call.Body, call.Began.Sub(at).Round(time.Millisecond))
		}
	}
}

// get reads a record that has to be there.
func get[T any](c *checker, who *person, key string) (r T, ok bool) {
	data, ok := c.records[key]
	if !ok {
		c.add(lost, who, "there is no record %s", key)
		return r, false
	}
	if err := json.Unmarshal(data, &r); err != nil {
		c.add(wrong, who, "the record %s can't be read: %v", key, err)
		return r, false
	}
	return r, true
}

// same complains about a value that is not as it should be.
func same[T comparable](c *checker, who *person, what string, got, want T) {
	if got != want {
		c.add(wrong, who, "%s is %v, should be %v", what, got, want)
	}
}

func (c *checker) person(p *person) {
	welcomed := c.rang(p)
	if l, ok := get[contracts.Lead](c, p, contracts.KeyLead(p.lead)); ok {
		same(c, p, "lead.status", l.Status, p.leadStatus(welcomed))
		same(c, p, "lead.phone", l.Phone, p.phone)
		same(c, p, "lead.name", l.Name, p.name)
		same(c, p, "lead.email", l.Email, p.email)
		same(c, p, "lead.pending", l.Pending, false)
		want := ""
		if p.buys {
			want = p.customer
		}
		same(c, p, "lead.customer_id", l.CustomerID, want)
		same(c, p, "lead.opted_out_at is set", !l.OptedOutAt.IsZero(), p.stops)
	}
	if k, ok := get[contracts.Contact](c, p, contracts.KeyContact(p.digits())); ok {
		same(c, p, "contact.leads", strings.Join(k.Leads, " "), p.lead)
		if p.buys {
			same(c, p, "contact.customers", strings.Join(k.Customers, " "), p.customer)
		}
		same(c, p, "contact.opted_out_at is set", !k.OptedOutAt.IsZero(), p.stops)
	}
	if p.stops {
		if o, ok := get[contracts.OptOut](c, p, contracts.KeyOptOut(p.digits())); ok {
			same(c, p, "optout.phone", o.Phone, p.phone)
			same(c, p, "optout.confirmed_at is set", !o.ConfirmedAt.IsZero(), !p.unreachable || !c.heard(p, stoppedText))
			same(c, p, "optout.opted_in_at is set", !o.OptedInAt.IsZero(), false)
			same(c, p, "optout.provider_blocked_at is set", !o.ProviderBlockedAt.IsZero(), true) // TWILIO_CONSENT
		}
	}
	if p.buys {
		c.client(p)
	}
}

func (c *checker) client(p *person) {
	status, access, subscription, failed := p.standing()
	if r, ok := get[contracts.Customer](c, p, contracts.KeyCustomer(p.customer)); ok {
		same(c, p, "customer.status", r.Status, status)
		same(c, p, "customer.access", r.Access, access)
		same(c, p, "customer.lead_id", r.LeadID, p.lead)
		same(c, p, "customer.email", r.Email, p.email)
		same(c, p, "customer.phone", r.Phone, p.phone)
		same(c, p, "customer.subscriptions", strings.Join(r.Subscriptions, " "), p.subscription)
	}
	if r, ok := get[contracts.Subscription](c, p, contracts.KeySubscription(p.subscription)); ok {
		same(c, p, "subscription.status", r.Status, subscription)
		same(c, p, "subscription.access", r.Access, access)
		same(c, p, "subscription.customer_id", r.CustomerID, p.customer)
		if failed >= 0 {
			same(c, p, "subscription.failed_attempts", r.FailedAttempts, failed)
		}
	}
	if p.churns {
		if r, ok := get[contracts.Churn](c, p, contracts.KeyChurn(p.subscription)); ok {
			same(c, p, "churn.customer_id", r.CustomerID, p.customer)
			same(c, p, "churn.reason", r.Reason, "cancellation_requested")
		}
	}
}

// keys: nobody is in the bucket who is not in the story.
func (c *checker) keys() {
	expected := map[string]bool{}
	for _, p := range c.plan.people {
		expected[contracts.KeyLead(p.lead)] = true
		expected[contracts.KeyContact(p.digits())] = true
		if p.stops {
			expected[contracts.KeyOptOut(p.digits())] = true
		}
		if p.buys {
			expected[contracts.KeyCustomer(p.customer)], expected[contracts.KeySubscription(p.subscription)] = true, true
			if p.churns {
				expected[contracts.KeyChurn(p.subscription)] = true
			}
		}
	}
	for key := range c.records {
		switch kind, _, _ := strings.Cut(key, "."); kind {
		case "lead", "contact", "customer", "subscription", "churn", "optout":
			if !expected[key] {
				c.add(wrong, nil, "the record %s is nobody's", key)
			}
		}
	}
}

// incidents: none is open when all is well but those that are a person's to decide, about
// a START or a question, or of a carrier.
func (c *checker) incidents() {
	for key, data := range c.records {
		var in contracts.Incident
		if !strings.HasPrefix(key, "incident.") || json.Unmarshal(data, &in) != nil || !in.ResolvedAt.IsZero() {
			continue
		}
		if !strings.HasPrefix(in.ID, "optouts-") && !strings.HasPrefix(in.ID, "sms-lost-") {
			c.add(wrong, nil, "the incident %s is open: %s", in.ID, in.Reason)
		}
	}
}
