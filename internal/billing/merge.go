package billing

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/phone"
)

// A book is what is known of one customer: all records that billing computes, before
// and after an event. Everything below is a function of books and events, with no
// I/O and no clock. Facts are merged so that neither order nor repetition shows, and
// statuses are computed from the merged facts.
type book struct {
	customer contracts.Customer
	subs     map[string]contracts.Subscription // by id, all that the customer has
}

// rules are the figures that an operator sets.
type rules struct {
	suspendAfter int    // failed attempts on one invoice
	region       string // of phone numbers without a prefix
}

// What closes an invoice, in Invoice.Closed.
const (
	closedPaid          = "paid"
	closedVoid          = "void"
	closedUncollectible = "uncollectible"
)

// closedRank: a debt that was written off may still be voided, or paid after all.
var closedRank = map[string]int{closedUncollectible: 1, closedVoid: 2, closedPaid: 3}

// mostAttempts bounds an invoice's attempt count; Stripe's own retries end at 8 or so.
const mostAttempts = 100

// A change is what an event changed that has an effect.
type change struct {
	failed    bool // this failure is the highest of an invoice that is still open
	closed    bool // the event closed the invoice
	attempts  int  // the invoice's highest failed attempt
	undecided bool // the subscription's newest state is a guess
}

// apply merges an event into a book.
func (r rules) apply(b *book, e Event) change {
	var ch change
	c := &b.customer
	c.ID = e.about.customer
	r.merge(c, e)
	if id := e.about.subscription; id != "" {
		c.Subscriptions = with(c.Subscriptions, id)
	}
	if e.sub != nil || e.invoice != nil && e.about.subscription != "" {
		s := b.subs[e.about.subscription]
		s.ID, s.CustomerID = e.about.subscription, c.ID
		if e.sub != nil {
			s.Snapshots = addSnapshot(s.Snapshots, contracts.Snapshot{
				Event: e.id, Created: e.at.Unix(), Rank: e.sub.rank, State: e.sub.state, Before: e.sub.before})
			if e.reading != nil {
				s.Settled = e.reading
			}
		}
		if e.invoice != nil {
			ch = mergeInvoice(&s.Invoices, e)
		}
		ch.undecided = r.settle(&s)
		b.subs[s.ID] = s
	} else if e.invoice != nil {
		ch = mergeInvoice(&c.Invoices, e)
	}
	standing(c, b.subs)
	return ch
}

// merge takes from an event what it says of the customer.
func (r rules) merge(c *contracts.Customer, e Event) {
	set := func(fact string, into *string, value string, wins func(a, b contracts.Facted) bool) {
		from := contracts.Facted{At: e.at, Event: e.id}
		held, ok := c.Facts[fact]
		if value == "" || ok && !wins(from, held) {
			return
		}
		if c.Facts == nil {
			c.Facts = map[string]contracts.Facted{}
		}
		*into, c.Facts[fact] = value, from
	}
	before := func(a, b contracts.Facted) bool {
		return a.At.Before(b.At) || a.At.Equal(b.At) && a.Event < b.Event
	}
	after := func(a, b contracts.Facted) bool { return before(b, a) }

	email := strings.TrimSpace(e.about.email)
	set("email", &c.Email, email, after)
	if email != "" {
		c.Emails = with(c.Emails, strings.ToLower(email))
	}
	number, shown := strings.TrimSpace(e.about.phone), ""
	if n, err := phone.Parse(number, r.region); err == nil {
		c.Phones = with(c.Phones, string(n))
		shown = string(n)
	} else {
		shown = number
	}
	set("phone", &c.Phone, shown, after)
	set("name", &c.Name, strings.TrimSpace(e.about.name), after)
	// The lead that a customer was does not change when it comes back by another form.
	set("lead_ref", &c.LeadRef, e.about.leadRef, before)
	if e.paid && (c.Since.IsZero() || e.at.Before(c.Since)) {
		c.Since = e.at
	}
}

// terminal says whether a subscription can't come back from a status.
func terminal(status string) bool { return status == "canceled" || status == "incomplete_expired" }

// ran says whether a subscription of that status runs or has run. One that was never
// paid ends as incomplete_expired, so one that is canceled has run.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func ran(status string) bool {
	return status != "" && status != "incomplete" && status != "incomplete_expired"
}

// addSnapshot adds what an event said to the candidates for the newest state: an end
// outweighs all, then the second counts, then the rank. What is left is a set, in
// which the order of events no longer shows.
func addSnapshot(set []contracts.Snapshot, s contracts.Snapshot) []contracts.Snapshot {
	if len(set) > 0 {
		switch d := compare(s, set[0]); {
		case d < 0:
			return set
		case d > 0:
			return []contracts.Snapshot{s}
		}
	}
	i, ok := slices.BinarySearchFunc(set, s.Event, func(o contracts.Snapshot, id string) int { return strings.Compare(o.Event, id) })
	if ok {
		return set
	}
	return slices.Insert(slices.Clone(set), i, s)
}

func compare(a, b contracts.Snapshot) int {
	ended := func(s contracts.Snapshot) int {
		if s.Rank == rankDeleted || terminal(s.State.Status) {
			return 1
		}
		return 0
	}
	if d := ended(a) - ended(b); d != 0 {
		return d
	}
	return cmp.Or(cmp.Compare(a.Created, b.Created), a.Rank-b.Rank)
}

// candidates gives the states that may be the newest, one snapshot each, sorted by
// event id. An update says what was before it, so that the events of one second form
// a chain, and the state that nothing follows is its end. There are several such if
// an event has not come yet, and none, so that all may be, if a state came back within
// the second. States compare with ==: their times are whole seconds in UTC.
func candidates(set []contracts.Snapshot) []contracts.Snapshot {
	followed := map[contracts.SubscriptionState]bool{}
	for _, s := range set {
		if s.Before != nil && *s.Before != s.State {
			followed[*s.Before] = true
		}
	}
	var ends, all []contracts.Snapshot
	seen := map[contracts.SubscriptionState]bool{}
	for _, s := range slices.Backward(set) {
		if seen[s.State] {
			continue
		}
		seen[s.State] = true
		all = append(all, s)
		if !followed[s.State] {
			ends = append(ends, s)
		}
	}
	if len(ends) == 0 {
		ends = all
	}
	slices.Reverse(ends)
	return ends
}

// settle computes a subscription's fields from its snapshots and invoices, and says
// whether the newest state is a guess.
func (r rules) settle(s *contracts.Subscription) (undecided bool) {
	if len(s.Snapshots) > 0 {
		ends := candidates(s.Snapshots)
		n := ends[len(ends)-1] // a guess, the same in every order of events
		named := slices.IndexFunc(ends, func(c contracts.Snapshot) bool { return s.Settled != nil && c.State == *s.Settled })
		switch {
		case len(ends) == 1:
			s.Settled = nil
		case named >= 0:
			n = ends[named]
		default:
			s.Settled, undecided = nil, true
		}
		s.AsOf = time.Unix(n.Created, 0).UTC()
		s.Status, s.PriceID, s.ProductID = n.State.Status, n.State.PriceID, n.State.ProductID
		s.Amount, s.Currency, s.Interval = n.State.Amount, n.State.Currency, n.State.Interval
		s.CancelAtPeriodEnd, s.CurrentPeriodEnd = n.State.CancelAtPeriodEnd, n.State.CurrentPeriodEnd
		s.CanceledAt, s.EndedAt, s.CancelReason = n.State.CanceledAt, n.State.EndedAt, n.State.CancelReason
		if terminal(s.Status) && s.EndedAt.IsZero() {
			s.EndedAt = s.AsOf
		}
	}
	s.FailedAttempts, s.NextAttemptAt = 0, time.Time{}
	for _, id := range slices.Sorted(maps.Keys(s.Invoices)) {
		if i := s.Invoices[id]; i.Closed == "" && i.Attempts > s.FailedAttempts {
			s.FailedAttempts, s.NextAttemptAt = i.Attempts, i.NextAttemptAt
		}
	}
	s.Access = r.access(s.Status, s.FailedAttempts)
	return undecided
}

// access says whether a subscription's services are on; "" while nothing says.
func (r rules) access(status string, failedAttempts int) contracts.Access {
	switch status {
	case "":
		return ""
	case "active", "trialing", "past_due":
		if failedAttempts >= r.suspendAfter {
			return contracts.AccessSuspended
		}
		return contracts.AccessActive
	case "unpaid", "paused":
		return contracts.AccessSuspended
	}
	return contracts.AccessStopped // incomplete, an end, or a status that Stripe invents later
}

// mergeInvoice merges an invoice event into a map of invoices.
func mergeInvoice(invoices *map[string]contracts.Invoice, e Event) change {
	f := e.invoice
	old := (*invoices)[f.id]
	now := old
	if f.failed {
		later := e.at.Compare(old.FailedAt)
		if later == 0 {
			later = f.next.Compare(old.NextAttemptAt)
		}
		if f.attempts > old.Attempts || f.attempts == old.Attempts && later > 0 {
			now.Attempts, now.NextAttemptAt, now.FailedAt = f.attempts, f.next, e.at
		}
	}
	if closedRank[f.closed] > closedRank[old.Closed] {
		now.Closed = f.closed
	}
	if *invoices == nil {
		*invoices = map[string]contracts.Invoice{}
	}
	(*invoices)[f.id] = now
	return change{
		failed:   f.failed && now.Attempts > old.Attempts && now.Closed == "",
		closed:   old.Closed == "" && now.Closed != "",
		attempts: now.Attempts,
	}
}

// standing computes a customer's status and access: the worst of its subscriptions
// that run, and the best access of any. Without a sign of payment it is no client;
// one that paid and has no subscription, or none that we have heard of yet, is.
func standing(c *contracts.Customer, subs map[string]contracts.Subscription) {
	c.Status, c.Access = "", ""
	if c.Since.IsZero() {
		return
	}
	running, ended := false, false
	worst, best := contracts.CustomerClient, contracts.AccessStopped
	for _, id := range c.Subscriptions {
		s := subs[id]
		switch {
		case s.Access == contracts.AccessStopped || s.Access == "":
			ended = ended || ran(s.Status)
			continue
		case s.Access == contracts.AccessSuspended:
			worst = contracts.CustomerSuspended
			if best == contracts.AccessStopped {
				best = contracts.AccessSuspended
			}
		default:
			best = contracts.AccessActive
			if (s.Status == "past_due" || s.FailedAttempts > 0) && worst == contracts.CustomerClient {
				worst = contracts.CustomerPastDue
			}
		}
		running = true
	}
	switch {
	case running:
		c.Status, c.Access = worst, best
	case ended:
		c.Status, c.Access = contracts.CustomerChurned, contracts.AccessStopped
	default:
		c.Status, c.Access = contracts.CustomerClient, contracts.AccessActive
	}
}

// churns lists the customer's subscriptions that ran and have ended.
func (b *book) churns() []contracts.Churn {
	var all []contracts.Churn
	for _, id := range b.customer.Subscriptions {
		if s := b.subs[id]; s.Status == "canceled" {
			all = append(all, contracts.Churn{
				SubscriptionID: s.ID, CustomerID: s.CustomerID, Email: b.customer.Email, PriceID: s.PriceID,
				Amount: s.Amount, Currency: s.Currency, EndedAt: s.EndedAt, Reason: s.CancelReason})
		}
	}
	return all
}

// with gives a sorted list that holds id.
func with(list []string, id string) []string {
	i, ok := slices.BinarySearch(list, id)
	if ok {
		return list
	}
	return slices.Insert(slices.Clone(list), i, id)
}
