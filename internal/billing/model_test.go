package billing

import (
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

// A history is what Stripe tells of one customer, and what is true of it in the end, as a
// person sees it who looks at the customer's page in Stripe's dashboard.
type history struct {
	events [][]byte // in the order in which things happened
	lead   contracts.Lead
	other  contracts.Lead // the one that client_reference_id may name in error

	customer contracts.Customer                // the fields that people look at
	subs     map[string]contracts.Subscription // as above
	never    map[string]bool                   // subscriptions that only seemed to run
	linked   string                            // the lead that the customer was
	closed   map[string]bool                   // invoice ids
	first    map[string]bool                   // causes of which no text tells: the customer sits before the form
	failures map[string]bool                   // causes: "<invoice id>.<attempt count>"
	texts    map[string]textTruth              // by cause, when everything comes in order
	guests   []guest
	reached  bool // at some time failed attempts suspended a subscription
}

// GoString keeps a failure readable; RAPID prints what it drew.
func (h history) GoString() string { return fmt.Sprintf("%s, %d events", h.customer.ID, len(h.events)) }

type textTruth struct{ to, body string }

// A guest bought something once, without an account.
type guest struct{ id, phone string }

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
	s.closed, s.failures, s.first, s.texts = map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]textTruth{}
	s.lead = contracts.Lead{ID: "lead" + s.tag, CreatedAt: time.Unix(s.now, 0).UTC(), Phone: s.phone, FormID: "1"}
	s.other = contracts.Lead{ID: "cart" + s.tag, CreatedAt: time.Unix(s.now+1, 0).UTC(), FormID: "1", PhoneIssue: "missing"}
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

	// What Stripe's customer object says now; of what it does not say the last form does.
	phone, email string
	name         string
	object       bool // the customer object has been told
	paid         bool
	refs         []simRef
	numbers      []string // all that the customer ever had
	deleted      bool
}

type simRef struct {
	id       string
	metadata bool
}

type simSub struct {
	stripe.Subscription
	asOf     int64
	toldGood bool // the last snapshot says active or trialing
	invoices []*simInvoice
	seen     []stripe.Subscription // states within the current second
	tried    bool                  // it had a trial
	ran      bool
}

type simInvoice struct {
	id, reason, status string
	created            int64
	phone, email, name string // frozen when it was finalized
	failed             int
	at                 []int64 // when each attempt failed, last
	next               time.Time
	amount             int64
}

type action struct {
	name string
	do   func()
}

func (s *sim) chance(label string) bool { return rapid.Bool().Draw(s.t, label) }

func (s *sim) version() stripe.Version {
	return rapid.SampledFrom(stripe.Versions()).Draw(s.t, "version")
}

func (s *sim) id(kind string) string {
	s.count++
	return fmt.Sprintf("%s_%sx%d", kind, s.tag, s.count)
}

// emit adds an event. Its id says nothing about its place.
func (s *sim) emit(eventType string, v stripe.Version, object any, previous map[string]any) {
	s.count++
	h := fnv.New32a()
	fmt.Fprint(h, s.salt, s.count)
	e := stripe.Event{ID: fmt.Sprintf("evt_%s_%08x%d", s.tag, h.Sum32(), s.count), Type: eventType, Version: v,
		Created: time.Unix(s.now, 0), Object: object, Previous: previous, Live: true}
	s.events = append(s.events, e.JSON())
}

// pays notes that a payment is to be seen.
func (s *sim) pays() {
	s.paid = true
	s.begins()
}

// begins notes that the customer is one from now on.
func (s *sim) begins() {
	if s.customer.Since.IsZero() {
		s.customer.Since = time.Unix(s.now, 0).UTC()
	}
}

// name notes that an event names a lead.
func (s *sim) names(id string, metadata bool) {
	if id != "" {
		s.refs = append(s.refs, simRef{id, metadata})
	}
}

// has notes what Stripe now says of the customer.
func (s *sim) has(phone, email, name string) {
	if phone != "" {
		s.customer.Phone = phone
		s.numbers = append(s.numbers, phone)
	}
	if email != "" {
		s.customer.Email = email
	}
	if name != "" {
		s.customer.Name = name
	}
}

func (s *sim) begin() {
	s.name = "Camille Martin"
	switch rapid.IntRange(0, 3).Draw(s.t, "how") {
	case 0:
		s.checkout("")
	case 1: // by API: the customer object first
		c := stripe.Customer{ID: s.customer.ID, Email: s.email, Name: s.name, Phone: s.phone, Created: time.Unix(s.now, 0)}
		if s.chance("named") {
			c.Metadata = map[string]string{"lead_id": s.lead.ID}
			s.names(s.lead.ID, true)
		}
		s.object = true
		s.emit("customer.created", s.version(), c.Render(), nil)
		s.has(c.Phone, c.Email, c.Name)
		s.subscribe()
	default:
		s.subscribe()
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
	sub.Status = rapid.SampledFrom([]string{"active", "trialing", "incomplete", "debit"}).Draw(s.t, "status")
	debit := sub.Status == "debit" // a SEPA debit is on its way: active until it comes back
	if debit {
		sub.Status = "active"
	}
	s.told(sub, "customer.subscription.created", nil)
	switch {
	case debit:
		i := s.newInvoice("subscription_create")
		sub.invoices = append(sub.invoices, i)
		if s.chance("the debit goes through") {
			s.now += 5 * 86400
			s.pay(sub, i)
		}
	case sub.Status == "incomplete":
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
	s.now++ // a person takes a second
	c := stripe.Checkout{ID: s.id("cs"), Customer: s.customer.ID, Subscription: sub, Email: s.email, Name: s.name, Phone: s.phone,
		Amount: 2900, Currency: "eur", Created: time.Unix(s.now, 0)}
	if s.chance("reference") {
		c.ClientReferenceID = rapid.SampledFrom([]string{s.lead.ID, s.other.ID, "nocart_" + s.tag}).Draw(s.t, "whose")
	}
	if s.chance("metadata") {
		c.Metadata = map[string]string{"lead_id": rapid.SampledFrom([]string{s.lead.ID, "nobody" + s.tag}).Draw(s.t, "named")}
	}
	c.PaymentStatus = rapid.SampledFrom([]string{"paid", "unpaid", "no_payment_required"}).Draw(s.t, "payment")
	tell := func(eventType string) {
		s.emit(eventType, s.version(), c.Render(), nil)
		if !s.object { // else the form was filled with what Stripe knows
			s.has(c.Phone, c.Email, c.Name)
		}
		s.names(c.Metadata["lead_id"], true)
		s.names(c.ClientReferenceID, false)
	}
	if sub != "" && c.PaymentStatus == "paid" {
		c.PaymentStatus = "unpaid" // the model's invoices are paid on their own
	}
	tell("checkout.session.completed")
	switch {
	case c.PaymentStatus != "unpaid":
		s.pays()
	case sub != "":
	case s.chance("comes through"):
		c.PaymentStatus = "paid"
		s.now += rapid.SampledFrom([]int64{0, 86400}).Draw(s.t, "later")
		tell("checkout.session.async_payment_succeeded")
		s.pays()
	case s.chance("comes back"):
		tell("checkout.session.async_payment_failed")
	}
}

// buysAsGuest lets somebody buy once, for whom Stripe makes no customer.
func (s *sim) buysAsGuest() {
	g := guest{id: s.id("cs"), phone: fmt.Sprintf("+337%08d", histories.Load()*10+int64(len(s.guests)))}
	c := stripe.Checkout{ID: g.id, Email: s.id("guest") + "@example.com", Name: "Dominique Petit", Phone: g.phone, Amount: 900, Currency: "eur",
		PaymentStatus: "paid", Created: time.Unix(s.now, 0)}
	s.guests = append(s.guests, g)
	s.emit("checkout.session.completed", s.version(), c.Render(), nil)
}

// moves changes the customer object, as the customer does in the portal.
func (s *sim) moves() {
	s.now++ // a person takes a second
	was := stripe.Customer{ID: s.customer.ID, Email: s.email, Name: s.name, Phone: s.phone}
	now, previous := was, map[string]any{}
	switch rapid.IntRange(0, 2).Draw(s.t, "what") {
	case 0:
		s.email = "new" + s.email
		now.Email, previous["email"] = s.email, null(was.Email)
	case 1:
		s.phone = fmt.Sprintf("+336%08d", 50_000_000+histories.Load()*100+int64(len(s.numbers)))
		now.Phone, previous["phone"] = s.phone, null(was.Phone)
	case 2:
		s.phone = ""
		now.Phone, previous["phone"] = "", null(was.Phone)
		s.customer.Phone = ""
	}
	s.object = true
	s.emit("customer.updated", s.version(), now.Render(), previous)
	s.has(now.Phone, now.Email, now.Name)
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// told emits a subscription as it is.
func (s *sim) told(sub *simSub, eventType string, previous map[string]any, version ...stripe.Version) {
	v := append(version, s.version())[0]
	s.emit(eventType, v, sub.Render(v), previous)
	s.names(sub.Metadata["leadgen_id"], true)
	sub.asOf = s.now
	sub.toldGood = sub.Status == "active" || sub.Status == "trialing"
	sub.tried = sub.tried || sub.Status == "trialing"
	sub.ran = sub.ran || sub.Status != "incomplete" && sub.Status != "incomplete_expired"
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
	shows := func(o stripe.Subscription) any { return o.Render(stripe.V20231016) } // different ones may show the same
	if slices.ContainsFunc(sub.seen, func(o stripe.Subscription) bool { return reflect.DeepEqual(shows(o), shows(sub.Subscription)) }) {
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

// newInvoice makes and finalizes an invoice: what it says of the customer stays so.
func (s *sim) newInvoice(reason string) *simInvoice {
	s.now++ // Stripe makes an invoice a second at most of one subscription
	return &simInvoice{id: s.id("in"), reason: reason, status: "open", amount: 2900, created: s.now, phone: s.phone, email: s.email, name: s.name}
}

func (s *sim) bill(eventType string, sub *simSub, i *simInvoice, attempts int) {
	r := stripe.Invoice{ID: i.id, Customer: s.customer.ID, Email: i.email, Name: i.name, Phone: i.phone, BillingReason: i.reason,
		Status: i.status, Currency: "eur", AmountDue: i.amount, AttemptCount: attempts, NextAttempt: i.next, Created: time.Unix(i.created, 0),
		HostedURL: "https://invoice.example.com/i/" + i.id}
	if sub != nil {
		r.Subscription, r.SubscriptionMetadata = sub.ID, sub.Metadata
	}
	s.emit(eventType, s.version(), r.Render(s.version()), nil)
	if !s.object { // nothing better is known than what the newest invoice says
		s.latestInvoice(i)
	}
	s.names(r.SubscriptionMetadata["leadgen_id"], true)
	s.numbers = append(s.numbers, i.phone)
}

// latestInvoice: without a customer object, the model's addresses do not change, so that
// any invoice says the same.
func (s *sim) latestInvoice(i *simInvoice) { s.has(i.phone, i.email, i.name) }

func (s *sim) fail(sub *simSub, i *simInvoice, attempts int) {
	if attempts == i.failed {
		s.now++ // retried by hand, which takes a second at least
		i.at[attempts-1] = s.now
	} else {
		i.at = append(i.at, s.now)
	}
	told := attempts > i.failed // by hand, the same attempt count is not told again
	i.failed, i.next = attempts, time.Time{}
	if s.chance("again later") {
		i.next = time.Unix(s.now+259200, 0)
	}
	cause := fmt.Sprintf("%s.%d", i.id, attempts)
	s.failures[cause] = true
	s.bill("invoice.payment_failed", sub, i, attempts)
	if sub != nil && sub.Status != "incomplete" && !terminal(sub.Status) {
		n, _ := sub.arrears()
		s.reached = s.reached || n >= suspendAfter
	}
	if i.reason == "subscription_create" && s.now-i.created < 3600 {
		s.first[cause] = told || s.first[cause]
		return
	}
	delete(s.first, cause) // tried once more by hand, hours later: told if that comes first
	if told {
		s.text(i, cause)
	}
}

// text is what the customer should get, as far as it can be reached.
func (s *sim) text(i *simInvoice, cause string) {
	to := s.customer.Phone
	if to == "" && s.linkedTo() == s.lead.ID && !slices.Contains(s.numbers, s.lead.Phone) {
		to = s.lead.Phone
	}
	if to == "" {
		return
	}
	s.texts[cause] = textTruth{to: to, body: "Bonjour, votre paiement de 29,00 € n'a pas abouti. " +
		"Vous pouvez le régler ici : https://invoice.example.com/i/" + i.id + " Répondez STOP pour ne plus recevoir de SMS."}
}

func (s *sim) pay(sub *simSub, i *simInvoice) {
	i.status = "paid"
	s.closed[i.id] = true
	s.bill("invoice.paid", sub, i, i.failed+1)
	s.bill("invoice.payment_succeeded", sub, i, i.failed+1)
	s.pays()
	// The status follows the latest invoice; paying an older one leaves it.
	if sub != nil && i == sub.invoices[len(sub.invoices)-1] && slices.Contains([]string{"incomplete", "past_due", "unpaid"}, sub.Status) {
		s.change(sub, func() { sub.Status = "active" })
	}
}

// possible lists what may happen next.
func (s *sim) possible() []action {
	a := []action{{"moves house", s.moves}, {"a guest buys", s.buysAsGuest}}
	if s.deleted {
		return a[1:]
	}
	if len(s.all) < 2 {
		a = append(a, action{"subscribes", s.subscribe})
	}
	a = append(a, action{"buys once", func() { s.checkout("") }},
		action{"is billed once", func() { s.loose = append(s.loose, s.newInvoice("manual")) }})
	open := func(sub *simSub, i *simInvoice) {
		a = append(a,
			action{"payment fails", func() { s.fail(sub, i, i.failed+1) }},
			action{"fails until suspended", func() {
				for range suspendAfter {
					s.now += rapid.SampledFrom([]int64{1, 86400}).Draw(s.t, "retry")
					s.fail(sub, i, i.failed+1)
				}
				if sub != nil && sub.Status == "active" {
					s.change(sub, func() { sub.Status = "past_due" })
				}
			}},
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
	ended := true
	for _, sub := range s.all {
		for _, i := range sub.invoices {
			owed(sub, i) // also after the subscription's end
		}
		if terminal(sub.Status) {
			continue
		}
		ended = false
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
			action{"months of renewals that fail once", func() {
				for range suspendAfter {
					s.now += 30 * 86400
					renew(true)
				}
			}},
			action{"a renewal that fails until suspended", func() {
				renew(true)
				for range suspendAfter - 1 {
					s.now += 86400
					i := sub.invoices[len(sub.invoices)-1]
					s.fail(sub, i, i.failed+1)
				}
			}},
			action{"changes plan", func() { s.change(sub, func() { sub.Price, sub.Amount = s.id("price"), sub.Amount+1000 }) }},
			action{"cancels, or not, in the portal", func() {
				s.change(sub, func() {
					sub.CancelAt, sub.CanceledAt, sub.CancelReason = time.Time{}, time.Time{}, ""
					if s.chance("cancels") {
						sub.CancelAt, sub.CanceledAt, sub.CancelReason = sub.PeriodEnd, time.Unix(s.now, 0), "cancellation_requested"
					}
				})
			}},
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
	if ended {
		a = append(a, action{"is deleted", func() {
			s.deleted = true
			c := stripe.Customer{ID: s.customer.ID, Email: s.email, Name: s.name, Phone: s.phone}
			s.emit("customer.deleted", s.version(), c.Render(), nil)
		}})
	}
	return a
}

// linkedTo is the lead that the customer was, of the two there are: metadata before a
// reference, whichever came first; else by its phone.
func (s *sim) linkedTo() string {
	for _, metadata := range []bool{true, false} {
		for _, r := range s.refs {
			if r.metadata == metadata && (r.id == s.lead.ID || r.id == s.other.ID) {
				return r.id
			}
		}
	}
	if slices.Contains(s.numbers, s.lead.Phone) {
		return s.lead.ID
	}
	return ""
}

// arrears counts what a person would hold against the customer: attempts that failed on
// what is still owed and was billed after the last bill that was paid, unless Stripe has
// said since that all is well.
func (m *simSub) arrears() (attempts int, next time.Time) {
	paid, last := int64(-1), int64(-1)
	for _, i := range m.invoices {
		if i.status == "paid" {
			paid = max(paid, i.created)
		}
	}
	for _, i := range m.invoices {
		if i.status != "open" || i.created <= paid {
			continue
		}
		for n, at := range i.at {
			if m.toldGood && at < m.asOf {
				continue
			}
			attempts++
			if n == len(i.at)-1 && at >= last { // of two in the same second that of the newer bill
				last, next = at, utc(i.next)
			}
		}
	}
	return attempts, next
}

// never says whether a subscription only seemed to run: its first bill was given up, and
// none was ever paid.
func (m *simSub) never() bool {
	gaveUp := false
	for _, i := range m.invoices {
		if i.status == "paid" {
			return false
		}
		gaveUp = gaveUp || i.reason == "subscription_create" && i.status != "open"
	}
	return gaveUp && !m.tried
}

// end tells what is true by now.
func (s *sim) end() history {
	s.subs, s.never = map[string]contracts.Subscription{}, map[string]bool{}
	c := &s.customer
	rank := map[contracts.CustomerStatus]int{"": 0, contracts.CustomerClient: 1, contracts.CustomerPastDue: 2, contracts.CustomerSuspended: 3}
	runs, ran, client := false, false, s.paid
	for _, m := range s.all {
		sub := contracts.Subscription{ID: m.ID, CustomerID: c.ID, Status: m.Status, PriceID: m.Price, ProductID: m.Product,
			Amount: new(m.Amount * m.Quantity), Currency: "eur", Interval: "month", IntervalCount: 1,
			CancelAtPeriodEnd: m.CancelAtPeriodEnd || !m.CancelAt.IsZero(),
			CurrentPeriodEnd:  m.PeriodEnd.UTC(), AsOf: time.Unix(m.asOf, 0).UTC(), CanceledAt: utc(m.CanceledAt), EndedAt: utc(m.EndedAt),
			CancelAt: utc(m.CancelAt), CancelReason: m.CancelReason}
		if m.CancelAtPeriodEnd {
			sub.CancelAt = m.PeriodEnd.UTC()
		}
		sub.FailedAttempts, sub.NextAttemptAt = m.arrears()
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
		client = client || m.ran && !m.never()
		ran = ran || m.Status == "canceled" && !m.never()
		runs = runs || status != ""
		if rank[status] > rank[c.Status] {
			c.Status = status
		}
		if c.Access != contracts.AccessActive && sub.Access != contracts.AccessStopped {
			c.Access = sub.Access
		}
		s.subs[sub.ID], s.never[sub.ID] = sub, m.never()
		c.Subscriptions = append(c.Subscriptions, sub.ID)
	}
	slices.Sort(c.Subscriptions)
	switch {
	case !client:
		c.Status, c.Access = "", ""
	case !runs && (ran || s.deleted):
		c.Status, c.Access = contracts.CustomerChurned, contracts.AccessStopped
	case !runs:
		c.Status, c.Access = contracts.CustomerClient, contracts.AccessActive
	}
	c.Since = time.Time{}
	s.linked = s.linkedTo()
	return s.history
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
