package billing

import (
	"encoding/json"
	"errors"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
	"leadpipe/internal/outcome"
)

// An Event is what billing takes from a Stripe event. The zero value is an event that
// changes nothing.
type Event struct {
	id      string
	at      time.Time // created, whole seconds
	live    bool
	account string // the connected account; empty: the own one
	message contracts.Message

	about   about
	sub     *subscriptionFact
	invoice *invoiceFact
	paid    bool // it shows a payment
	deleted bool // the customer was deleted

	// reading is what Stripe said when it was asked for the subscription; nil: not asked.
	reading *contracts.SubscriptionState
	asked   bool // also when Stripe had no answer that helps
}

func (e Event) world() identity.World { return identity.WorldOf(e.live, e.account) }

// about is whom an event concerns; empty fields say nothing.
type about struct {
	customer, subscription string

	email, phone, name string
	asOf               time.Time // when these were true
	rank               int       // how sure their source is
	emptied            []string  // of "email", "phone", "name": what the event says was taken away

	metadata  []string // lead ids
	reference string   // client_reference_id, if it can be a lead's id
}

// How sure the sources of contact data are, when two say different things in the same
// second: the customer object itself, what a form asked for, a copy on an invoice.
const (
	rankInvoice = iota
	rankCheckout
	rankCustomerCreated
	rankCustomerUpdated
)

// decode reads an event. Every shape since API version 2023-10-16 is read, in which
// fields have moved; stripe-go's own structs would give zeros for those. An error is
// permanent.
func decode(data []byte) (Event, error) {
	var raw struct {
		ID       string `json:"id"`
		Type     string `json:"type"`
		Created  stamp  `json:"created"`
		LiveMode *bool  `json:"livemode"`
		Account  string `json:"account"`
		Data     struct {
			Object   json.RawMessage `json:"object"`
			Previous map[string]any  `json:"previous_attributes"`
		} `json:"data"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return Event{}, malformed("reading the event", err)
	}
	e := Event{id: raw.ID, at: raw.Created.time(), live: raw.LiveMode == nil || *raw.LiveMode, account: raw.Account}
	e.about.asOf = e.at
	var err error
	switch raw.Type {
	case "customer.created", "customer.updated", "customer.deleted":
		err = e.readCustomer(raw.Data.Object, raw.Data.Previous, raw.Type)
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
	case e.account != "" && !contracts.ValidID(e.account):
		return Event{}, malformed("reading the event", errors.New("an account that can't be one"))
	}
	return e, nil
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
	if data[0] == '{' {
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
	LeadID    string `json:"lead_id"`
	LeadgenID string `json:"leadgen_id"`
}

func (m leadIDs) ids() []string {
	var ids []string
	for _, id := range []string{m.LeadID, m.LeadgenID} {
		if contracts.ValidID(id) {
			ids = append(ids, id)
		}
	}
	return ids
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
