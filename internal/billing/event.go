package billing

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
)

// An Event is what billing takes from a Stripe event. The zero value is an event that
// changes nothing.
type Event struct {
	id      string
	at      time.Time // created, whole seconds
	about   about
	sub     *subscriptionFact
	invoice *invoiceFact
	paid    bool // it shows a payment, or a subscription that runs or ran

	// reading is what Stripe said when it was asked for the subscription; nil: not asked.
	reading *contracts.SubscriptionState
	asked   bool // also when Stripe had no answer that helps
}

// about is whom an event concerns; empty fields say nothing.
type about struct {
	customer, subscription string
	email, phone, name     string
	leadRef                string
}

type subscriptionFact struct {
	rank   int
	state  contracts.SubscriptionState
	before *contracts.SubscriptionState
}

type invoiceFact struct {
	id, reason, closed string
	failed             bool
	attempts           int
	next               time.Time
	amount             int64 // still due
	currency, url      string
}

// Snapshots' ranks.
const (
	rankCreated = 1 + iota
	rankUpdated
	rankDeleted
)

// decode reads an event. Every shape since API version 2023-10-16 is read, in which
// fields have moved; stripe-go's own structs would give zeros for those. An error is
// permanent.
func decode(data []byte) (Event, error) {
	var raw struct {
		ID      string `json:"id"`
		Type    string `json:"type"`
		Created stamp  `json:"created"`
		Data    struct {
			Object   json.RawMessage `json:"object"`
			Previous map[string]any  `json:"previous_attributes"`
		} `json:"data"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return Event{}, malformed("reading the event", err)
	}
	e := Event{id: raw.ID, at: raw.Created.time()}
	var err error
	switch raw.Type {
	case "customer.subscription.created":
		err = e.readSubscription(raw.Data.Object, nil, rankCreated)
	case "customer.subscription.updated", "customer.subscription.paused", "customer.subscription.resumed",
		"customer.subscription.trial_will_end":
		err = e.readSubscription(raw.Data.Object, raw.Data.Previous, rankUpdated)
	case "customer.subscription.deleted":
		err = e.readSubscription(raw.Data.Object, nil, rankDeleted)
	case "invoice.paid", "invoice.payment_succeeded", "invoice.payment_failed", "invoice.voided", "invoice.marked_uncollectible":
		err = e.readInvoice(raw.Data.Object, raw.Type)
	case "checkout.session.completed", "checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed":
		err = e.readCheckout(raw.Data.Object, raw.Type)
	default:
		return Event{}, nil
	}
	switch {
	case err != nil:
		return Event{}, err
	case e.about.customer == "":
		return Event{}, nil
	case !contracts.ValidID(raw.ID) || e.at.IsZero():
		return Event{}, malformed("reading the event", errors.New("no id, or no time"))
	}
	return e, nil
}

type subscriptionObject struct {
	ID                string  `json:"id"`
	Customer          ref     `json:"customer"`
	Status            string  `json:"status"`
	Currency          string  `json:"currency"`
	CancelAtPeriodEnd bool    `json:"cancel_at_period_end"`
	CurrentPeriodEnd  stamp   `json:"current_period_end"` // before 2025-03-31
	CanceledAt        stamp   `json:"canceled_at"`
	EndedAt           stamp   `json:"ended_at"`
	Metadata          leadIDs `json:"metadata"`
	Cancellation      struct {
		Reason string `json:"reason"`
	} `json:"cancellation_details"`
	Items struct {
		Data []struct {
			Deleted          bool   `json:"deleted"`
			Quantity         *int64 `json:"quantity"`
			CurrentPeriodEnd stamp  `json:"current_period_end"` // since 2025-03-31, and beside the other a while before
			Price            struct {
				ID         string `json:"id"`
				Product    ref    `json:"product"`
				UnitAmount int64  `json:"unit_amount"`
				Currency   string `json:"currency"`
				Recurring  struct {
					Interval  string `json:"interval"`
					UsageType string `json:"usage_type"`
				} `json:"recurring"`
			} `json:"price"`
		} `json:"data"`
	} `json:"items"`
}

func (e *Event) readSubscription(object json.RawMessage, previous map[string]any, rank int) error {
	o, state, err := readState(object)
	if err != nil {
		return err
	}
	if !contracts.ValidID(o.ID) || !contracts.ValidID(string(o.Customer)) {
		return malformed("reading the subscription", errors.New("no id, or no customer"))
	}
	e.about = about{customer: string(o.Customer), subscription: o.ID, leadRef: o.Metadata.id()}
	if rank == rankDeleted && !terminal(state.Status) {
		state.Status = "canceled"
	}
	e.sub = &subscriptionFact{rank: rank, state: state}
	e.paid = ran(state.Status)
	if len(previous) == 0 {
		return nil
	}
	var whole map[string]any
	if err := json.Unmarshal(object, &whole); err != nil {
		return malformed("reading the subscription", err)
	}
	overlay(whole, previous)
	old, err := json.Marshal(whole)
	if err != nil {
		return malformed("reading previous_attributes", err)
	}
	// What it was before only helps to order events of one second; if it can't be read,
	// they are ordered without it.
	if _, before, err := readState(old); err == nil {
		e.sub.before = &before
	}
	return nil
}

// readState takes from a subscription what we keep of it.
func readState(object json.RawMessage) (subscriptionObject, contracts.SubscriptionState, error) {
	var o subscriptionObject
	if err := json.Unmarshal(object, &o); err != nil {
		return o, contracts.SubscriptionState{}, malformed("reading the subscription", err)
	}
	s := contracts.SubscriptionState{
		Status: o.Status, Currency: o.Currency, CancelAtPeriodEnd: o.CancelAtPeriodEnd,
		CanceledAt: o.CanceledAt.time(), EndedAt: o.EndedAt.time(), CancelReason: o.Cancellation.Reason,
	}
	var end stamp
	found := false
	for _, i := range o.Items.Data {
		if i.Deleted {
			continue
		}
		if !found {
			found = true
			s.PriceID, s.ProductID, s.Interval = i.Price.ID, string(i.Price.Product), i.Price.Recurring.Interval
			if i.Price.Currency != "" {
				s.Currency = i.Price.Currency
			}
		}
		end = max(end, i.CurrentPeriodEnd)
		quantity := int64(1)
		switch {
		case i.Quantity != nil:
			quantity = *i.Quantity
		case i.Price.Recurring.UsageType == "metered": // what will be used is not known
			quantity = 0
		}
		sum, ok := addProduct(s.Amount, i.Price.UnitAmount, quantity)
		if !ok {
			return o, s, malformed("reading the subscription", errors.New("an amount out of range"))
		}
		s.Amount = sum
	}
	if end == 0 {
		end = o.CurrentPeriodEnd
	}
	s.CurrentPeriodEnd = end.time()
	s.Currency = strings.ToLower(s.Currency)
	if s.Status == "" {
		return o, s, malformed("reading the subscription", errors.New("no status"))
	}
	return o, s, nil
}

func (e *Event) readInvoice(object json.RawMessage, eventType string) error {
	var o struct {
		ID              string `json:"id"`
		Customer        ref    `json:"customer"`
		Email           string `json:"customer_email"`
		Name            string `json:"customer_name"`
		Phone           string `json:"customer_phone"`
		Status          string `json:"status"`
		BillingReason   string `json:"billing_reason"`
		AttemptCount    int    `json:"attempt_count"`
		NextAttempt     stamp  `json:"next_payment_attempt"`
		AmountDue       int64  `json:"amount_due"`
		AmountRemaining *int64 `json:"amount_remaining"`
		Currency        string `json:"currency"`
		URL             string `json:"hosted_invoice_url"`
		Subscription    ref    `json:"subscription"` // before 2025-03-31
		Details         struct {
			Metadata leadIDs `json:"metadata"`
		} `json:"subscription_details"` // before 2025-03-31
		Parent struct {
			Details struct {
				Subscription ref     `json:"subscription"`
				Metadata     leadIDs `json:"metadata"`
			} `json:"subscription_details"`
		} `json:"parent"`
		Lines struct {
			Data []struct {
				Subscription ref `json:"subscription"` // before 2025-03-31
				Parent       struct {
					Item struct {
						Subscription ref `json:"subscription"`
					} `json:"subscription_item_details"`
					Invoice struct {
						Subscription ref `json:"subscription"`
					} `json:"invoice_item_details"`
				} `json:"parent"`
			} `json:"data"`
		} `json:"lines"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return malformed("reading the invoice", err)
	}
	sub := firstOf(o.Subscription, o.Parent.Details.Subscription)
	for _, l := range o.Lines.Data {
		sub = firstOf(sub, l.Subscription, l.Parent.Item.Subscription, l.Parent.Invoice.Subscription)
	}
	if !contracts.ValidID(o.ID) || !contracts.ValidID(string(o.Customer)) || sub != "" && !contracts.ValidID(string(sub)) {
		return malformed("reading the invoice", errors.New("no id, or no customer"))
	}
	if o.AttemptCount < 0 || o.AttemptCount > mostAttempts {
		return malformed("reading the invoice", errors.New("an attempt count out of range"))
	}
	e.about = about{customer: string(o.Customer), subscription: string(sub), email: o.Email, phone: o.Phone, name: o.Name,
		leadRef: firstOf(o.Details.Metadata.id(), o.Parent.Details.Metadata.id())}
	f := &invoiceFact{id: o.ID, reason: o.BillingReason, amount: o.AmountDue, currency: strings.ToLower(o.Currency), url: o.URL}
	if o.AmountRemaining != nil {
		f.amount = *o.AmountRemaining
	}
	// The event's type says what happened; a rendering may be older or newer than it.
	switch eventType {
	case "invoice.paid", "invoice.payment_succeeded":
		f.closed, e.paid = closedPaid, true
	case "invoice.voided":
		f.closed = closedVoid
	case "invoice.marked_uncollectible":
		f.closed = closedUncollectible
	default:
		f.failed, f.attempts, f.next = true, max(1, o.AttemptCount), o.NextAttempt.time()
	}
	e.invoice = f
	return nil
}

func (e *Event) readCheckout(object json.RawMessage, eventType string) error {
	var o struct {
		Customer      ref     `json:"customer"`
		Subscription  ref     `json:"subscription"`
		Mode          string  `json:"mode"`
		PaymentStatus string  `json:"payment_status"`
		Reference     string  `json:"client_reference_id"`
		Metadata      leadIDs `json:"metadata"`
		Email         string  `json:"customer_email"`
		Details       struct {
			Email string `json:"email"`
			Name  string `json:"name"`
			Phone string `json:"phone"`
		} `json:"customer_details"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return malformed("reading the checkout session", err)
	}
	switch {
	case eventType == "checkout.session.async_payment_failed":
	case eventType == "checkout.session.async_payment_succeeded":
		e.paid = true
	case o.PaymentStatus == "paid":
		e.paid = true
	case o.PaymentStatus == "no_payment_required": // a trial, or all of it off; but also a card that is only stored
		e.paid = o.Mode != "setup"
	}
	if o.Customer == "" {
		if e.paid {
			return outcome.Permanentf(outcome.Unknown,
				"a checkout was paid as a guest: Stripe made no customer for it, so there is none to file it under; set customer_creation to always")
		}
		return nil
	}
	if !contracts.ValidID(string(o.Customer)) || o.Subscription != "" && !contracts.ValidID(string(o.Subscription)) {
		return malformed("reading the checkout session", errors.New("an id that can't be one"))
	}
	e.about = about{customer: string(o.Customer), subscription: string(o.Subscription), phone: o.Details.Phone, name: o.Details.Name,
		email: firstOf(o.Details.Email, o.Email), leadRef: o.Metadata.id()}
	if e.about.leadRef == "" && contracts.ValidID(o.Reference) {
		e.about.leadRef = o.Reference
	}
	return nil
}

// A stamp is a time in seconds since 1970; 0 or null is none.
type stamp int64

// UnmarshalJSON refuses what RFC 3339 can't say.
func (s *stamp) UnmarshalJSON(data []byte) error {
	var n int64
	if err := json.Unmarshal(data, &n); err != nil {
		return err
	}
	if n < 0 || n > 253402300799 { // the end of the year 9999
		return errors.New("a time out of range")
	}
	*s = stamp(n)
	return nil
}

func (s stamp) time() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0).UTC()
}

// A ref is the id of another object, given as it is or within the object itself.
type ref string

// UnmarshalJSON reads either.
func (r *ref) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var o struct {
			ID string `json:"id"`
		}
		err := json.Unmarshal(data, &o)
		*r = ref(o.ID)
		return err
	}
	return json.Unmarshal(data, (*string)(r))
}

// leadIDs are the places in an object's metadata where a lead's id may stand.
type leadIDs struct {
	LeadgenID string `json:"leadgen_id"`
	LeadID    string `json:"lead_id"`
}

func (m leadIDs) id() string {
	if id := firstOf(m.LeadgenID, m.LeadID); contracts.ValidID(id) {
		return id
	}
	return ""
}

// overlay sets attributes of an object to what they were: objects attribute by
// attribute, lists as a whole, as Stripe lists what changed.
func overlay(object, previous map[string]any) {
	for k, v := range previous {
		was, ok := v.(map[string]any)
		now, both := object[k].(map[string]any)
		if ok && both {
			overlay(now, was)
			continue
		}
		object[k] = v
	}
}

// addProduct gives sum + a×b, and whether it is an amount of this world.
func addProduct(sum, a, b int64) (int64, bool) {
	const limit = 1 << 53
	f := float64(sum) + float64(a)*float64(b)
	if math.Abs(f) >= limit || math.Abs(float64(a)) >= limit || math.Abs(float64(b)) >= limit {
		return 0, false
	}
	return sum + a*b, true
}

func firstOf[T comparable](values ...T) T {
	var zero T
	for _, v := range values {
		if v != zero {
			return v
		}
	}
	return zero
}

func malformed(doing string, err error) error {
	return outcome.Permanentf(outcome.Malformed, "%s: %w", doing, err)
}
