package billing

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"pgregory.net/rapid"

	"leadpipe/contracts"
	"leadpipe/internal/sandbox/stripe"
)

// A history is what Stripe tells of one customer, and what is true of it in the end.
type history struct {
	events [][]byte // in the order in which things happened
	lead   contracts.Lead

	customer contracts.Customer                // without Facts, Emails, Phones, Invoices
	subs     map[string]contracts.Subscription // without Snapshots and Invoices
	closed   map[string]bool                   // invoice ids
	failures map[string]bool                   // causes: "<invoice id>.<attempt count>"
}

// suspendAfter is the rule that the model's truth is told by.
const suspendAfter = 3

var histories atomic.Int64

// drawHistory lets a model of Stripe live for a while. Every history has ids, a phone
// and e-mails of its own, so that many fit into one bucket.
func drawHistory(t *rapid.T) history {
	n := histories.Add(1)
	s := &sim{t: t, tag: fmt.Sprintf("h%d", n), now: 1795000000, salt: rapid.Uint32().Draw(t, "salt"), phone: fmt.Sprintf("+336%08d", n)}
	s.customer.ID = "cus_" + s.tag
	s.email = s.tag + "@example.com"
	s.closed, s.failures = map[string]bool{}, map[string]bool{}
	s.lead = contracts.Lead{ID: "lead" + s.tag, CreatedAt: time.Unix(s.now, 0).UTC(), Phone: s.phone, FormID: "1"}
	s.begin()
	for range rapid.IntRange(2, 14).Draw(t, "steps") {
		// Half of all things happen within a second of one another.
		s.now += rapid.SampledFrom([]int64{0, 0, 1, 86400}).Draw(t, "pause")
		actions := s.possible()
		names := make([]string, len(actions))
		for i, a := range actions {
			names[i] = a.name
		}
		name := rapid.SampledFrom(names).Draw(t, "action")
		actions[slices.Index(names, name)].do()
	}
	return s.end()
}

type sim struct {
	t     *rapid.T
	tag   string
	salt  uint32
	now   int64
	count int
	history
	all []*simSub
	// loose are invoices of no subscription.
	loose []*simInvoice

	phone, email string
	facts        map[string]contracts.Facted
}

type simSub struct {
	stripe.Subscription
	asOf     int64
	invoices []*simInvoice
	seen     []stripe.Subscription // states within the current second
}

type simInvoice struct {
	id, reason, status string
	failed             int
	next               time.Time
	amount             int64
}

type action struct {
	name string
	do   func()
}

func (s *sim) chance(label string) bool { return rapid.Bool().Draw(s.t, label) }

func (s *sim) version() stripe.Version {
	return rapid.SampledFrom([]stripe.Version{stripe.V20231016, stripe.Endive}).Draw(s.t, "version")
}

func (s *sim) id(kind string) string {
	s.count++
	return fmt.Sprintf("%s_%sx%d", kind, s.tag, s.count)
}

// emit adds an event. Its id says nothing about its place.
func (s *sim) emit(eventType string, v stripe.Version, object any, previous map[string]any) contracts.Facted {
	s.count++
	h := fnv.New32a()
	fmt.Fprint(h, s.salt, s.count)
	e := stripe.Event{ID: fmt.Sprintf("evt_%s_%08x%d", s.tag, h.Sum32(), s.count), Type: eventType, Version: v,
		Created: time.Unix(s.now, 0), Object: object, Previous: previous}
	s.events = append(s.events, e.JSON())
	return contracts.Facted{At: time.Unix(s.now, 0).UTC(), Event: e.ID}
}

// pays notes that an event shows a payment or a running subscription.
func (s *sim) pays() {
	if s.customer.Since.IsZero() {
		s.customer.Since = time.Unix(s.now, 0).UTC()
	}
}

// tells notes what an event says of the customer.
func (s *sim) tells(from contracts.Facted, fact, value string, into *string, sign int) {
	if value == "" {
		return
	}
	if s.facts == nil {
		s.facts = map[string]contracts.Facted{}
	}
	held, ok := s.facts[fact]
	if !ok || sign*cmp.Or(from.At.Compare(held.At), cmp.Compare(from.Event, held.Event)) > 0 {
		*into, s.facts[fact] = value, from
	}
}

func (s *sim) begin() {
	if s.chance("subscribes") {
		s.subscribe()
	} else {
		s.checkout("")
	}
}

func (s *sim) subscribe() {
	sub := &simSub{Subscription: stripe.Subscription{ID: s.id("sub"), Customer: s.customer.ID, Price: s.id("price"), Product: "prod_1",
		Amount: 2900, Quantity: int64(rapid.IntRange(1, 3).Draw(s.t, "quantity")), Currency: "eur", Created: time.Unix(s.now, 0),
		PeriodStart: time.Unix(s.now, 0), PeriodEnd: time.Unix(s.now+2592000, 0)}}
	if s.chance("metadata") {
		sub.Metadata = map[string]string{"leadgen_id": s.lead.ID}
	}
	s.all = append(s.all, sub)
	sub.Status = rapid.SampledFrom([]string{"active", "trialing", "incomplete"}).Draw(s.t, "status")
	s.told(sub, "customer.subscription.created", nil)
	if sub.Status == "incomplete" {
		sub.invoices = append(sub.invoices, s.newInvoice("subscription_create"))
		if s.chance("pays at once") {
			s.pay(sub, sub.invoices[0])
		}
	}
	if s.chance("by checkout") {
		s.checkout(sub.ID)
	}
}

func (s *sim) checkout(sub string) {
	c := stripe.Checkout{ID: s.id("cs"), Customer: s.customer.ID, Subscription: sub, Email: s.email, Name: "Camille Martin", Phone: s.phone,
		Amount: 2900, Currency: "eur", Created: time.Unix(s.now, 0)}
	if s.chance("reference") {
		c.ClientReferenceID = rapid.SampledFrom([]string{s.lead.ID, "other" + s.tag}).Draw(s.t, "whose")
	}
	c.PaymentStatus = rapid.SampledFrom([]string{"paid", "unpaid", "no_payment_required"}).Draw(s.t, "payment")
	tell := func(eventType string) {
		from := s.emit(eventType, s.version(), c.Render(), nil)
		s.tells(from, "email", c.Email, &s.customer.Email, 1)
		s.tells(from, "phone", c.Phone, &s.customer.Phone, 1)
		s.tells(from, "name", c.Name, &s.customer.Name, 1)
		s.tells(from, "lead_ref", c.ClientReferenceID, &s.customer.LeadRef, -1)
	}
	if sub != "" && c.PaymentStatus == "paid" {
		c.PaymentStatus = "no_payment_required" // the model's invoices are paid on their own
	}
	tell("checkout.session.completed")
	switch {
	case c.PaymentStatus != "unpaid":
		s.pays()
	case s.chance("comes through"):
		c.PaymentStatus = "paid"
		s.now += rapid.SampledFrom([]int64{0, 86400}).Draw(s.t, "later")
		tell("checkout.session.async_payment_succeeded")
		s.pays()
	case s.chance("comes back"):
		tell("checkout.session.async_payment_failed")
	}
}

// told emits a subscription as it is.
func (s *sim) told(sub *simSub, eventType string, previous map[string]any, version ...stripe.Version) {
	v := append(version, s.version())[0]
	from := s.emit(eventType, v, sub.Render(v), previous)
	s.tells(from, "lead_ref", sub.Metadata["leadgen_id"], &s.customer.LeadRef, -1)
	sub.asOf = s.now
	if sub.Status != "incomplete" && sub.Status != "incomplete_expired" {
		s.pays()
	}
}

// change changes a subscription and emits the update. A state does not come back
// within a second: nothing in the events would tell its place.
func (s *sim) change(sub *simSub, with func()) {
	was := sub.Subscription
	if sub.asOf != s.now {
		sub.seen = nil
	}
	sub.seen = append(sub.seen, was)
	with()
	if slices.ContainsFunc(sub.seen, func(o stripe.Subscription) bool { return reflect.DeepEqual(o, sub.Subscription) }) {
		s.now++
		sub.seen = nil
	}
	v := s.version()
	before, after, previous := was.Render(v), sub.Render(v), map[string]any{}
	for k, old := range before {
		if reflect.DeepEqual(old, after[k]) {
			continue
		}
		previous[k] = old
		if k == "items" {
			previous[k] = map[string]any{"data": old.(map[string]any)["data"]}
		}
	}
	s.told(sub, "customer.subscription.updated", previous, v)
}

func (s *sim) newInvoice(reason string) *simInvoice {
	return &simInvoice{id: s.id("in"), reason: reason, status: "open", amount: 2900}
}

func (s *sim) bill(eventType string, sub *simSub, i *simInvoice, attempts int) {
	r := stripe.Invoice{ID: i.id, Customer: s.customer.ID, Email: s.email, Name: "Camille Martin", Phone: s.phone, BillingReason: i.reason,
		Status: i.status, Currency: "eur", AmountDue: i.amount, AttemptCount: attempts, NextAttempt: i.next, Created: time.Unix(s.now, 0)}
	if sub != nil {
		r.Subscription, r.SubscriptionMetadata = sub.ID, sub.Metadata
	}
	from := s.emit(eventType, s.version(), r.Render(s.version()), nil)
	s.tells(from, "email", r.Email, &s.customer.Email, 1)
	s.tells(from, "phone", r.Phone, &s.customer.Phone, 1)
	s.tells(from, "name", r.Name, &s.customer.Name, 1)
	s.tells(from, "lead_ref", r.SubscriptionMetadata["leadgen_id"], &s.customer.LeadRef, -1)
}

func (s *sim) fail(sub *simSub, i *simInvoice, attempts int) {
	if attempts == i.failed {
		s.now++ // retried by hand, which takes a second at least
	}
	i.failed, i.next = attempts, time.Time{}
	if s.chance("again later") {
		i.next = time.Unix(s.now+259200, 0)
	}
	s.failures[fmt.Sprintf("%s.%d", i.id, attempts)] = true
	s.bill("invoice.payment_failed", sub, i, attempts)
}

func (s *sim) pay(sub *simSub, i *simInvoice) {
	i.status = "paid"
	s.closed[i.id] = true
	s.bill("invoice.paid", sub, i, i.failed+1)
	s.bill("invoice.payment_succeeded", sub, i, i.failed+1)
	s.pays()
	if sub != nil && slices.Contains([]string{"incomplete", "past_due", "unpaid"}, sub.Status) {
		s.change(sub, func() { sub.Status = "active" })
	}
}

// possible lists what may happen next.
func (s *sim) possible() []action {
	a := []action{{"moves house", func() { s.email = "new" + s.email }}}
	if len(s.all) < 2 {
		a = append(a, action{"subscribes", s.subscribe})
	}
	a = append(a, action{"buys once", func() { s.checkout("") }},
		action{"is billed once", func() { s.loose = append(s.loose, s.newInvoice("manual")) }})
	open := func(sub *simSub, i *simInvoice) {
		a = append(a,
			action{"payment fails", func() { s.fail(sub, i, i.failed+1) }},
			action{"payment comes", func() { s.pay(sub, i) }},
			action{"is voided", func() { i.status = "void"; s.closed[i.id] = true; s.bill("invoice.voided", sub, i, i.failed) }},
			action{"is given up", func() {
				i.status = "uncollectible"
				s.closed[i.id] = true
				s.bill("invoice.marked_uncollectible", sub, i, i.failed)
			}})
		if i.failed > 0 {
			a = append(a, action{"fails again by hand", func() { s.fail(sub, i, i.failed) }})
		}
	}
	owed := func(sub *simSub, i *simInvoice) {
		switch i.status {
		case "open":
			open(sub, i)
		case "uncollectible":
			a = append(a, action{"is paid after all", func() { s.pay(sub, i) }})
		}
	}
	for _, i := range s.loose {
		owed(nil, i)
	}
	for _, sub := range s.all {
		for _, i := range sub.invoices {
			owed(sub, i) // also after the subscription's end
		}
		if terminal(sub.Status) {
			continue
		}
		end := func(reason string) {
			if s.chance("straggler") { // told before the end, and dated after it
				s.now++
				s.told(sub, "customer.subscription.updated", nil)
				s.now--
			}
			sub.Status, sub.CancelReason, sub.EndedAt = "canceled", reason, time.Unix(s.now, 0)
			if sub.CanceledAt.IsZero() {
				sub.CanceledAt = sub.EndedAt
			}
			s.told(sub, "customer.subscription.deleted", nil)
		}
		switch sub.Status {
		case "incomplete":
			a = append(a, action{"expires", func() {
				s.change(sub, func() { sub.Status, sub.EndedAt = "incomplete_expired", time.Unix(s.now, 0) })
			}})
			continue
		case "trialing":
			a = append(a,
				action{"trial ends soon", func() { s.told(sub, "customer.subscription.trial_will_end", nil) }},
				action{"trial ends", func() { s.change(sub, func() { sub.Status = "active" }) }},
				action{"trial ends without a card", func() {
					s.change(sub, func() { sub.Status = "paused" })
					s.told(sub, "customer.subscription.paused", nil)
				}})
		case "paused":
			a = append(a, action{"resumes", func() {
				s.change(sub, func() { sub.Status = "active" })
				s.told(sub, "customer.subscription.resumed", nil)
			}})
		case "past_due":
			a = append(a,
				action{"goes unpaid", func() { s.change(sub, func() { sub.Status = "unpaid" }) }},
				action{"is cancelled for want of payment", func() { end("payment_failed") }})
		}
		renew := func(fails bool) {
			i := s.newInvoice("subscription_cycle")
			sub.invoices = append(sub.invoices, i)
			s.change(sub, func() { sub.PeriodStart, sub.PeriodEnd = sub.PeriodEnd, sub.PeriodEnd.Add(30*24*time.Hour) })
			if !fails {
				s.pay(sub, i)
				return
			}
			s.fail(sub, i, 1)
			if sub.Status == "active" {
				s.change(sub, func() { sub.Status = "past_due" })
			}
		}
		a = append(a,
			action{"renews", func() { renew(false) }},
			action{"renewal fails", func() { renew(true) }},
			action{"changes plan", func() { s.change(sub, func() { sub.Price, sub.Amount = s.id("price"), sub.Amount+1000 }) }},
			action{"cancels, or not, at the period's end", func() {
				s.change(sub, func() {
					sub.CancelAtPeriodEnd = !sub.CancelAtPeriodEnd
					sub.CanceledAt, sub.CancelReason = time.Time{}, ""
					if sub.CancelAtPeriodEnd {
						sub.CanceledAt, sub.CancelReason = time.Unix(s.now, 0), "cancellation_requested"
					}
				})
			}},
			action{"ends", func() { end("cancellation_requested") }})
	}
	return a
}

// end tells what is true by now.
func (s *sim) end() history {
	s.subs = map[string]contracts.Subscription{}
	c := &s.customer
	rank := map[contracts.CustomerStatus]int{"": 0, contracts.CustomerClient: 1, contracts.CustomerPastDue: 2, contracts.CustomerSuspended: 3}
	runs, ran := false, false
	for _, m := range s.all {
		sub := contracts.Subscription{ID: m.ID, CustomerID: c.ID, Status: m.Status, PriceID: m.Price, ProductID: m.Product,
			Amount: m.Amount * m.Quantity, Currency: "eur", Interval: "month", CancelAtPeriodEnd: m.CancelAtPeriodEnd,
			CurrentPeriodEnd: m.PeriodEnd.UTC(), AsOf: time.Unix(m.asOf, 0).UTC(), CanceledAt: utc(m.CanceledAt), EndedAt: utc(m.EndedAt),
			CancelReason: m.CancelReason}
		slices.SortFunc(m.invoices, func(a, b *simInvoice) int { return cmp.Compare(a.id, b.id) })
		for _, i := range m.invoices {
			if i.status == "open" && i.failed > sub.FailedAttempts {
				sub.FailedAttempts, sub.NextAttemptAt = i.failed, utc(i.next)
			}
		}
		status := contracts.CustomerStatus("")
		switch m.Status {
		case "active", "trialing", "past_due":
			sub.Access, status = contracts.AccessActive, contracts.CustomerClient
			if m.Status == "past_due" || sub.FailedAttempts > 0 {
				status = contracts.CustomerPastDue
			}
			if sub.FailedAttempts >= suspendAfter {
				sub.Access, status = contracts.AccessSuspended, contracts.CustomerSuspended
			}
		case "unpaid", "paused":
			sub.Access, status = contracts.AccessSuspended, contracts.CustomerSuspended
		default:
			sub.Access = contracts.AccessStopped
		}
		ran = ran || m.Status == "canceled"
		runs = runs || status != ""
		if rank[status] > rank[c.Status] {
			c.Status = status
		}
		if c.Access != contracts.AccessActive && sub.Access != contracts.AccessStopped {
			c.Access = sub.Access
		}
		s.subs[sub.ID] = sub
		c.Subscriptions = append(c.Subscriptions, sub.ID)
	}
	slices.Sort(c.Subscriptions)
	switch {
	case c.Since.IsZero():
	case !runs && ran:
		c.Status, c.Access = contracts.CustomerChurned, contracts.AccessStopped
	case !runs:
		c.Status, c.Access = contracts.CustomerClient, contracts.AccessActive
	}
	return s.history
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
