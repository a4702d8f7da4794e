package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/phone"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/sandbox/stripe"
	"leadpipe/internal/sandbox/twilio"
)

// mostPeople bounds who is remembered.
const mostPeople = 50

// people are those who filled in the form on the page.
type people struct {
	mu   sync.Mutex
	list []*someone // oldest first
	said []textView // what they texted
}

// someone is one of them, and what Stripe knows of him or her.
type someone struct {
	mu sync.Mutex // held while something happens to the person

	lead         meta.Lead
	name, number string
	sub          stripe.Subscription
	client, owes bool
	invoice      stripe.Invoice // the one that is open, or the last one
	tried        int            // failed attempts on it
	clock        time.Time      // of the last thing that happened at Stripe
}

func newSomeone(name, number string) *someone {
	name, number = strings.TrimSpace(name), strings.TrimSpace(number)
	p := &someone{name: name, number: number}
	if n, err := phone.Parse(number, "FR"); err == nil {
		p.number = string(n)
	}
	p.lead = newLead(name, number, "")
	p.lead.Fields[2].Values = []string{"person" + p.lead.ID + "@example.com"}
	return p
}

func (p *people) add(s *someone) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, s)
	if len(p.list) > mostPeople {
		p.list = p.list[1:]
	}
}

func (p *people) find(id string) (*someone, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.list {
		if s.lead.ID == id {
			return s, nil
		}
	}
	return nil, errors.New("nobody is chosen")
}

func (p *people) view() []personView {
	p.mu.Lock()
	list := append([]*someone{}, p.list...)
	p.mu.Unlock()
	out := []personView{}
	for _, s := range list {
		s.mu.Lock()
		out = append(out, personView{ID: s.lead.ID, Name: s.name, Phone: s.number, Client: s.client, Owes: s.owes})
		s.mu.Unlock()
	}
	return out
}

func (p *people) texts() []textView {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]textView{}, p.said...)
}

func (p *people) say(t textView) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, t)
	if len(p.said) > mostShown {
		p.said = p.said[1:]
	}
}

func randomID(prefix string) string { return prefix + strconv.FormatUint(rand.Uint64(), 36) }

// tick is the time of the next thing that happens to a person at Stripe: now, and never
// in the same second as the thing before. In life weeks lie between two bills, and
// Stripe's clock has whole seconds.
func (p *someone) tick() time.Time {
	now := time.Now().Truncate(time.Second)
	if next := p.clock.Add(time.Second); now.Before(next) {
		now = next
	}
	p.clock = now
	return now
}

// event sends one event of Stripe's about a person through the edge.
func (s *Sandbox) event(ctx context.Context, p *someone, typ string, object map[string]any, previous map[string]any) error {
	e := stripe.Event{ID: randomID("evt_"), Type: typ, Version: stripe.V20231016, Created: p.tick(), Object: object, Previous: previous}
	return took(s.postStripe(ctx, typ, e.JSON()))
}

// The price list.
const (
	small, large         = 2900, 4900 // minor units
	smallPrice, bigPrice = "price_small", "price_large"
)

// pay has somebody buy a subscription at Stripe's checkout.
func (s *Sandbox) pay(ctx context.Context, p *someone, _ *http.Request) (string, error) {
	if p.client {
		return "", errors.New("is a client already")
	}
	now := p.tick()
	customer := p.sub.Customer
	if customer == "" {
		customer = randomID("cus_")
	}
	p.sub = stripe.Subscription{ID: randomID("sub_"), Customer: customer, Status: "active", Price: smallPrice, Product: "prod_site", Amount: small,
		Currency: "eur", Created: now, PeriodStart: now, PeriodEnd: now.AddDate(0, 1, 0)}
	p.invoice, p.tried = s.bill(p, "subscription_create", now), 0
	email := p.lead.Fields[2].Values[0]
	checkout := stripe.Checkout{ID: randomID("cs_"), Customer: customer, Subscription: p.sub.ID, Email: email, Name: p.name, Phone: p.number,
		ClientReferenceID: p.lead.ID, Amount: small, Currency: "eur", Created: now}
	if err := s.event(ctx, p, "checkout.session.completed", checkout.Render(), nil); err != nil {
		return "", err
	}
	if err := s.event(ctx, p, "customer.subscription.created", p.sub.Render(stripe.V20231016), nil); err != nil {
		return "", err
	}
	p.client = true
	return "kv get crm " + contracts.KeyCustomer(customer), s.paid(ctx, p)
}

// bill makes a new invoice of somebody's subscription.
func (s *Sandbox) bill(p *someone, reason string, at time.Time) stripe.Invoice {
	return stripe.Invoice{ID: randomID("in_"), Customer: p.sub.Customer, Email: p.lead.Fields[2].Values[0], Name: p.name, Phone: p.number,
		Subscription: p.sub.ID, BillingReason: reason, Status: "open", Currency: "eur", AmountDue: p.sub.Amount, Created: at,
		PeriodStart: at, PeriodEnd: at.AddDate(0, 1, 0), HostedURL: "https://invoice.example.com/" + p.sub.ID}
}

// paid says that the open invoice was paid.
func (s *Sandbox) paid(ctx context.Context, p *someone) error {
	p.invoice.Status, p.invoice.AmountPaid, p.invoice.AttemptCount, p.invoice.NextAttempt = "paid", p.invoice.AmountDue, p.tried+1, time.Time{}
	p.owes = false
	return s.event(ctx, p, "invoice.paid", p.invoice.Render(stripe.V20231016), nil)
}

var errNoClient = errors.New("is not a client: let the person pay first")

// changePlan moves somebody to the other price.
func (s *Sandbox) changePlan(ctx context.Context, p *someone, _ *http.Request) (string, error) {
	if !p.client {
		return "", errNoClient
	}
	before := p.sub.Render(stripe.V20231016)["items"]
	if p.sub.Amount == small {
		p.sub.Amount, p.sub.Price = large, bigPrice
	} else {
		p.sub.Amount, p.sub.Price = small, smallPrice
	}
	return "kv get crm " + contracts.KeySubscription(p.sub.ID),
		s.event(ctx, p, "customer.subscription.updated", p.sub.Render(stripe.V20231016), map[string]any{"items": before})
}

// failPayment has the next payment fail, n times more.
func (s *Sandbox) failPayment(ctx context.Context, p *someone, n int) (string, error) {
	if !p.client {
		return "", errNoClient
	}
	if !p.owes {
		p.invoice, p.tried, p.owes = s.bill(p, "subscription_cycle", p.tick()), 0, true
	}
	for range n {
		p.tried++
		p.invoice.AttemptCount, p.invoice.NextAttempt = p.tried, p.clock.AddDate(0, 0, 3)
		if err := s.event(ctx, p, "invoice.payment_failed", p.invoice.Render(stripe.V20231016), nil); err != nil {
			return "", err
		}
		if p.sub.Status == "active" {
			p.sub.Status = "past_due"
			if err := s.event(ctx, p, "customer.subscription.updated", p.sub.Render(stripe.V20231016), map[string]any{"status": "active"}); err != nil {
				return "", err
			}
		}
	}
	return "kv get crm " + contracts.KeySubscription(p.sub.ID), nil
}

// payAgain pays the open invoice.
func (s *Sandbox) payAgain(ctx context.Context, p *someone, _ *http.Request) (string, error) {
	if !p.client {
		return "", errNoClient
	}
	if !p.owes {
		p.invoice, p.tried = s.bill(p, "subscription_cycle", p.tick()), 0
	}
	if err := s.paid(ctx, p); err != nil {
		return "", err
	}
	if p.sub.Status == "past_due" {
		p.sub.Status = "active"
		if err := s.event(ctx, p, "customer.subscription.updated", p.sub.Render(stripe.V20231016), map[string]any{"status": "past_due"}); err != nil {
			return "", err
		}
	}
	return "kv get crm " + contracts.KeyCustomer(p.sub.Customer), nil
}

// cancelPlan ends somebody's subscription at once.
func (s *Sandbox) cancelPlan(ctx context.Context, p *someone, _ *http.Request) (string, error) {
	if !p.client {
		return "", errNoClient
	}
	now := p.tick()
	p.sub.Status, p.sub.CanceledAt, p.sub.EndedAt, p.sub.CancelReason = "canceled", now, now, "cancellation_requested"
	p.client, p.owes = false, false
	return "kv get crm " + contracts.KeyChurn(p.sub.ID), s.event(ctx, p, "customer.subscription.deleted", p.sub.Render(stripe.V20231016), nil)
}

// text has somebody text us.
func (s *Sandbox) text(ctx context.Context, p *someone, body string) (string, error) {
	if strings.TrimSpace(body) == "" || len(body) > 1600 {
		return "", errors.New("a text has 1 to 1600 characters")
	}
	if !strings.HasPrefix(p.number, "+") {
		return "", errors.New("this number can't text")
	}
	in := twilio.Inbound{From: p.number, Body: body, MessageSID: fmt.Sprintf("SM%016x%016x", rand.Uint64(), rand.Uint64())}
	send := func(ctx context.Context) (int, error) {
		r, err := s.Twilio.Inbound(ctx, in)
		return r.Status, err
	}
	s.people.say(textView{Phone: p.number, Mine: true, Body: body, At: time.Now().UnixMilli()})
	s.remember("SMS", send)
	if err := took(send(ctx)); err != nil {
		return "", err
	}
	return "stream get WEBHOOKS --last-for webhooks.twilio.*." + strings.TrimPrefix(p.number, "+"), nil
}
