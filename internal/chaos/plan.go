package chaos

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/sandbox/stripe"
	"leadpipe/internal/sandbox/twilio"
)

// A person is somebody in the story, and all that happens to him or her.
type person struct {
	n                            int
	name, phone, email           string
	lead, customer, subscription string
	invoice                      string // the one whose payments fail
	buys, recovers, churns       bool
	fails                        int  // attempts on it that fail
	stops, starts, says          bool // the texts that he or she writes
	unreachable                  bool // texts don't arrive, says the carrier
	clock                        time.Time
	form                         meta.Lead
	deliveries                   []*delivery
}

func (p *person) digits() string { return strings.TrimPrefix(p.phone, "+") }

// A delivery is one webhook. Its provider sends it until it is acknowledged, and perhaps
// once more.
type delivery struct {
	at        time.Duration // since the beginning
	again     time.Duration // when it is sent once more; 0: never
	impatient bool          // the provider hangs up on the first try before there is an answer
	what      string
	ids       []string // the Nats-Msg-Ids of what it becomes
	path      string
	body      []byte          // Stripe's and Meta's
	inbound   *twilio.Inbound // or a text
	who       []*person
	stop      bool
}

// A blow is something bad that happens to a program.
type blow struct {
	at     time.Duration
	target string // a process, or "all"
	what   string // "kill", "term", "freeze"
	down   time.Duration
}

func (b blow) String() string {
	return fmt.Sprintf("%7.2fs %-6s %s for %s", b.at.Seconds(), b.what, b.target, b.down.Round(time.Millisecond))
}

// A plan is a run before it runs. The same seed, size and time give the same plan, but for
// the dates of the story, which end now.
type plan struct {
	people     []*person
	deliveries []*delivery
	blows      []blow
}

// targets are the processes that blows hit, some more often than others.
var targets = []string{"server-1", "edge", "edge", "consumers-1", "consumers-1", "consumers-2", "consumers-2", "consumers-3", "consumers-3", "consumers-4"}

// newPlan makes a plan of people whose story begins within length, and of a blow every so
// often (0: none). longest is the longest freeze of consumers.
func newPlan(seed uint64, count int, length, every, longest time.Duration, now time.Time) *plan {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := &plan{}
	for n := range count {
		who := newPerson(rng, seed, n, now)
		p.people = append(p.people, who)
		start := rand2(rng, length*8/10)
		p.tell(rng, who, start, length)
	}
	slices.SortStableFunc(p.deliveries, func(a, b *delivery) int { return cmp.Compare(a.at, b.at) })
	p.beat(rand.New(rand.NewPCG(seed, 2)), length, every, longest)
	return p
}

// rand2 is a duration below d.
func rand2(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

func newPerson(rng *rand.Rand, seed uint64, n int, now time.Time) *person {
	p := &person{
		n: n, name: fmt.Sprintf("Zoé Martin %c", 'A'+n%26), phone: fmt.Sprintf("+336399%05d", 80000+n), email: fmt.Sprintf("zoe%d@example.com", n),
		lead: fmt.Sprintf("%d%06d", 100000+seed%100000, n), customer: fmt.Sprintf("cus_%d", n), subscription: fmt.Sprintf("sub_%d", n),
		invoice: fmt.Sprintf("in_%d", n),
	}
	p.buys = rng.Float64() < 0.5
	if p.buys {
		p.fails = []int{0, 0, 1, 2, 3, 4}[rng.IntN(6)]
		p.recovers = p.fails > 0 && rng.Float64() < 0.4
		p.churns = rng.Float64() < 0.25
	}
	p.stops = rng.Float64() < 0.4
	p.starts = p.stops && rng.Float64() < 0.3
	p.says = rng.Float64() < 0.1
	p.unreachable = rng.Float64() < 0.05
	// What is old is looked up at Twilio before it is texted about, what is new is not.
	ago := time.Minute
	if n%2 == 0 {
		ago = time.Hour
	}
	p.clock = now.Add(-ago).Truncate(time.Second)
	p.form = meta.Lead{ID: p.lead, CreatedTime: p.clock, PageID: "100000000000101", FormID: "100000000000202", Platform: "fb",
		Fields: []meta.Field{{Name: "full_name", Values: []string{p.name}}, {Name: "phone_number", Values: []string{p.phone}}, {Name: "email", Values: []string{p.email}}}}
	return p
}

// tell makes a person's webhooks. They happen in order, and arrive as they may.
func (p *plan) tell(rng *rand.Rand, who *person, start, length time.Duration) {
	at := start
	announced := []*person{who}
	if who.n > 0 && rng.Float64() < 0.1 { // one body of Meta's tells of two, one of them known already
		announced = append(announced, p.people[who.n-1])
	}
	var forms []meta.Lead
	var ids []string
	for _, a := range announced {
		forms = append(forms, a.form)
		ids = append(ids, contracts.MessageIDFacebook(a.lead))
	}
	p.add(rng, length, &delivery{at: at, what: "leadgen", ids: ids, path: "/api/webhooks/facebook",
		body: meta.Webhook(meta.IDs(who.n%3 == 0), forms...), who: announced})
	if who.stops {
		// Half of them at the very moment of their welcome.
		when := at + rand2(rng, 2*time.Second)
		if rng.Float64() < 0.5 {
			when = at + rand2(rng, length-at)
		}
		word := []string{"STOP", "Stop svp", "arrêtez", "STOPSMS"}[rng.IntN(4)]
		p.text(rng, length, who, when, "stop", word)
		if who.starts {
			p.text(rng, length, who, when+3*time.Second, "start", "START")
		}
	}
	if who.says {
		p.text(rng, length, who, at+rand2(rng, time.Second), "says", "Bonjour, à quelle heure ouvrez-vous ?")
	}
	for _, e := range who.events() {
		at += rand2(rng, 400*time.Millisecond)
		p.add(rng, length, &delivery{at: at, what: e.Type, ids: []string{contracts.MessageIDStripe(e.ID)}, path: "/api/webhooks/stripe",
			body: e.JSON(), who: []*person{who}})
	}
}

func (p *plan) text(rng *rand.Rand, length time.Duration, who *person, at time.Duration, what, body string) {
	sid := fmt.Sprintf("SM%08x%024x", who.n, len(p.deliveries))
	p.add(rng, length, &delivery{at: at, what: "text " + what, ids: []string{contracts.MessageIDTwilio(sid)}, stop: what == "stop",
		inbound: &twilio.Inbound{From: who.phone, Body: body, MessageSID: sid}, who: []*person{who}})
}

// add puts a delivery where the world's disorder puts it.
func (p *plan) add(rng *rand.Rand, length time.Duration, d *delivery) {
	if rng.Float64() < 0.3 {
		d.at += rand2(rng, 2*time.Second)
	}
	d.at = min(d.at, length)
	if rng.Float64() < 0.2 {
		d.again = min(d.at+rand2(rng, 3*time.Second)+time.Millisecond, length)
	}
	d.impatient = rng.Float64() < 0.05
	for _, who := range d.who {
		who.deliveries = append(who.deliveries, d)
	}
	p.deliveries = append(p.deliveries, d)
}

// beat makes the blows. Each target has come back before it is hit again.
func (p *plan) beat(rng *rand.Rand, length, every, longest time.Duration) {
	if every == 0 {
		return
	}
	free := map[string]time.Duration{}
	for at := every; at < length; at += every/2 + rand2(rng, every) {
		b := blow{at: at, target: targets[rng.IntN(len(targets))], what: "kill", down: rand2(rng, 1500*time.Millisecond)}
		switch x := rng.Float64(); {
		case x < 0.06:
			b.target = "all"
		case x < 0.2:
			b.what = "term"
		case x < 0.45:
			b.what, b.down = "freeze", 300*time.Millisecond+rand2(rng, 2*time.Second)
			if strings.HasPrefix(b.target, "consumers") && rng.Float64() < 0.3 {
				b.down = rand2(rng, longest)
			}
		}
		names := []string{b.target}
		if b.target == "all" {
			names = slices.Clone(targets)
		}
		if slices.ContainsFunc(names, func(n string) bool { return free[n] > at }) {
			continue
		}
		for _, n := range names {
			free[n] = at + b.down + 500*time.Millisecond
		}
		p.blows = append(p.blows, b)
	}
}

// events is a person's life at Stripe, in the order in which it happens there, a second
// for each step.
func (p *person) events() []stripe.Event {
	if !p.buys {
		return nil
	}
	version := []stripe.Version{stripe.V20231016, stripe.Endive}[p.n%2]
	begin, at := p.clock, p.clock
	var out []stripe.Event
	event := func(typ string, object map[string]any, previous map[string]any) {
		at = at.Add(time.Second)
		out = append(out, stripe.Event{ID: fmt.Sprintf("evt_%d_%d", p.n, len(out)), Type: typ, Version: version, Created: at, Object: object, Previous: previous})
	}
	sub := stripe.Subscription{ID: p.subscription, Customer: p.customer, Status: "active", Price: "price_1", Product: "prod_1", Amount: 2900,
		Currency: "eur", Created: begin, PeriodStart: begin, PeriodEnd: begin.Add(30 * 24 * time.Hour)}
	bill := func(id, reason string) stripe.Invoice {
		return stripe.Invoice{ID: id, Customer: p.customer, Subscription: p.subscription, Email: p.email, Name: p.name, Phone: p.phone, BillingReason: reason,
			Status: "open", Currency: "eur", AmountDue: 2900, Created: at.Add(time.Second), PeriodStart: begin, PeriodEnd: begin.Add(30 * 24 * time.Hour),
			HostedURL: "https://pay.example.com/" + id}
	}
	paid := func(in stripe.Invoice, tries int) {
		in.Status, in.AmountPaid, in.AttemptCount = "paid", in.AmountDue, tries
		event("invoice.paid", in.Render(version), nil)
	}
	status := func(from, to string) {
		sub.Status = to
		event("customer.subscription.updated", sub.Render(version), map[string]any{"status": from})
	}
	event("checkout.session.completed", stripe.Checkout{ID: fmt.Sprintf("cs_%d", p.n), Customer: p.customer, Subscription: p.subscription, Email: p.email,
		Name: p.name, Phone: p.phone, ClientReferenceID: p.lead, Amount: 2900, Currency: "eur", Created: begin}.Render(), nil)
	event("customer.subscription.created", sub.Render(version), nil)
	paid(bill(p.invoice+"_first", "subscription_create"), 1)
	if p.fails > 0 {
		in := bill(p.invoice, "subscription_cycle")
		for n := range p.fails {
			in.AttemptCount, in.NextAttempt = n+1, at.Add(72*time.Hour)
			event("invoice.payment_failed", in.Render(version), nil)
			if n == 0 {
				status("active", "past_due")
			}
		}
		if p.recovers {
			paid(in, p.fails+1)
			status("past_due", "active")
		}
	}
	if p.churns {
		sub.Status, sub.CanceledAt, sub.EndedAt, sub.CancelReason = "canceled", at.Add(time.Second), at.Add(time.Second), "cancellation_requested"
		event("customer.subscription.deleted", sub.Render(version), nil)
	}
	return out
}
