package billing

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/phone"
)

// A book is what is known of one customer: all records that billing computes, before
// and after an event. Everything in merge.go, subscription.go and invoice.go is a
// function of books and events, with no I/O and no clock. Facts are merged so that
// neither order nor repetition shows, and statuses are computed from the merged facts.
type book struct {
	customer contracts.Customer
	subs     map[string]contracts.Subscription // by id, all that the customer has
}

// rules are the figures that an operator sets.
type rules struct {
	suspendAfter int    // failed attempts since the last success
	region       string // of phone numbers without a prefix
}

const (
	// mostRefs bounds the lead ids that a customer's events may name.
	mostRefs = 20
	// mostAddresses bounds the e-mails and the phones under which a customer is known.
	mostAddresses = 50
)

// A change is what an event changed that has an effect.
type change struct {
	failed    bool // this failure is the highest of an invoice that is still open
	closed    bool // the event says that the invoice is closed
	attempts  int  // the invoice's highest failed attempt
	undecided bool // the subscription's newest state is a guess
}

// apply merges an event into a book.
func (r rules) apply(b *book, e Event) change {
	var ch change
	c := &b.customer
	c.ID = e.about.customer
	c.LiveMode, c.Account = livemode(e.live), e.account
	r.merge(c, e)
	if id := e.about.subscription; id != "" {
		c.Subscriptions = with(c.Subscriptions, id)
	}
	if e.sub != nil || e.invoice != nil && e.about.subscription != "" {
		s := b.subs[e.about.subscription]
		s.ID, s.CustomerID, s.LiveMode, s.Account = e.about.subscription, c.ID, livemode(e.live), e.account
		if e.sub != nil {
			addSnapshot(&s, e)
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

// livemode is a record's: only tests are marked.
func livemode(live bool) *bool {
	if live {
		return nil
	}
	return new(false)
}

// merge takes from an event what it says of the customer.
func (r rules) merge(c *contracts.Customer, e Event) {
	email := strings.TrimSpace(e.about.email)
	set(c, e, "email", &c.Email, email)
	if email != "" {
		c.Emails = bounded(with(c.Emails, strings.ToLower(email)))
	}
	shown := strings.TrimSpace(e.about.phone)
	if n, err := phone.Parse(shown, r.region); err == nil {
		c.Phones = bounded(with(c.Phones, string(n)))
		shown = string(n)
	}
	set(c, e, "phone", &c.Phone, shown)
	set(c, e, "name", &c.Name, strings.TrimSpace(e.about.name))
	for _, id := range e.about.metadata {
		addRef(c, contracts.LeadRef{ID: id, Kind: refMetadata, At: e.at, Event: e.id})
	}
	if id := e.about.reference; id != "" {
		addRef(c, contracts.LeadRef{ID: id, Kind: refReference, At: e.at, Event: e.id})
	}
	if e.paid {
		c.PaidAt = earlier(c.PaidAt, e.at)
	}
	if e.deleted {
		c.DeletedAt = earlier(c.DeletedAt, e.at)
	}
}

// set merges one of the customer's fields. It is dated by when it was true at its
// source; in the same second the customer object itself is surer than what it was
// copied to. An empty value counts only where the event says that it was taken away.
func set(c *contracts.Customer, e Event, fact string, into *string, value string) {
	if value == "" && !slices.Contains(e.about.emptied, fact) {
		return
	}
	from := contracts.Facted{At: e.about.asOf, Rank: e.about.rank, Event: e.id}
	held := c.Facts[fact]
	if cmp.Or(from.At.Compare(held.At), from.Rank-held.Rank, strings.Compare(from.Event, held.Event)) <= 0 {
		return
	}
	if c.Facts == nil {
		c.Facts = map[string]contracts.Facted{}
	}
	*into, c.Facts[fact] = value, from
}

// How an event may name a lead, the surer way first. An operator puts a lead's id into
// metadata on purpose; client_reference_id is often a cart's or a user's number.
// https://docs.stripe.com/api/checkout/sessions/object#checkout_session_object-client_reference_id
const (
	refMetadata  = "metadata"
	refReference = "reference"
)

// addRef enters a lead's id that an event named: metadata first, then by time.
func addRef(c *contracts.Customer, r contracts.LeadRef) {
	refs := slices.Clone(c.Refs)
	if len(refs) == 0 && c.LeadRef != "" { // of the former release
		refs = []contracts.LeadRef{{ID: c.LeadRef, Kind: refReference, At: c.Facts["lead_ref"].At, Event: c.Facts["lead_ref"].Event}}
	}
	compare := func(a, b contracts.LeadRef) int {
		return cmp.Or(truth(a.Kind != refMetadata)-truth(b.Kind != refMetadata), a.At.Compare(b.At),
			strings.Compare(a.Event, b.Event), strings.Compare(a.ID, b.ID))
	}
	if i := slices.IndexFunc(refs, func(o contracts.LeadRef) bool { return o.ID == r.ID && o.Kind == r.Kind }); i >= 0 {
		if compare(refs[i], r) <= 0 {
			return
		}
		refs = slices.Delete(refs, i, i+1)
	}
	i, _ := slices.BinarySearchFunc(refs, r, compare)
	refs = slices.Insert(refs, i, r)
	c.Refs = refs[:min(len(refs), mostRefs)]
	c.LeadRef = c.Refs[0].ID
}

// standing computes since when a customer is one, its status and its access: the worst
// of its subscriptions that run, and the best access of any. Without a sign of payment
// or trial it is no client; one that paid and has no subscription, or none that we have
// heard of yet, is.
func standing(c *contracts.Customer, subs map[string]contracts.Subscription) {
	c.Since = c.PaidAt
	for _, id := range c.Subscriptions {
		c.Since = earlier(c.Since, began(subs[id]))
	}
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
			ended = ended || !began(s).IsZero()
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
	case ended || !c.DeletedAt.IsZero():
		c.Status, c.Access = contracts.CustomerChurned, contracts.AccessStopped
	default:
		c.Status, c.Access = contracts.CustomerClient, contracts.AccessActive
	}
}

// churns lists the customer's subscriptions that ran and have ended, and those that have
// ended and never ran.
func (b *book) churns() (ends []contracts.Churn, none []string) {
	for _, id := range b.customer.Subscriptions {
		switch s := b.subs[id]; {
		case s.Status != "canceled":
		case began(s).IsZero():
			none = append(none, id)
		default:
			ends = append(ends, contracts.Churn{
				SubscriptionID: s.ID, CustomerID: s.CustomerID, Email: b.customer.Email, PriceID: s.PriceID,
				Amount: s.Amount, Currency: s.Currency, EndedAt: s.EndedAt, Reason: s.CancelReason, LiveMode: s.LiveMode, Account: s.Account})
		}
	}
	return ends, none
}

// with gives a sorted list that holds id.
func with(list []string, id string) []string {
	i, ok := slices.BinarySearch(list, id)
	if ok {
		return list
	}
	return slices.Insert(slices.Clone(list), i, id)
}

// bounded cuts a sorted list of addresses; which ones stay does not depend on their order.
func bounded(list []string) []string { return list[:min(len(list), mostAddresses)] }

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// earlier gives the earlier of two times, of which a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
