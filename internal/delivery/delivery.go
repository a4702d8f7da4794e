// Package delivery is what follows from the news of a text: that Twilio took it, that
// it arrived or did not, that its number wants no more. The news comes as an answer to
// the sender, from Twilio's message list, or by webhook, and must change the records
// in the same way. Every function is a decision over a transaction; see package state.
package delivery

import (
	"strconv"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/state"
)

// Unsubscribed is Twilio's error code of a text to a number that opted out there.
const Unsubscribed = 21610

// News is what Twilio says about one text.
type News struct {
	SID    string
	Status string    // Twilio's word: "accepted", "delivered", …
	Code   int       // Twilio's error code, or 0
	At     time.Time // when it was so; of a text that was taken, when that was
}

// Record enters the news of the text that key names, and what follows from it: a lead
// is contacted, an opt-out confirmed, a number opted out. A status never goes back. No
// such text, or a status that Twilio has invented since: nothing changes.
func Record(tx *state.Tx, key string, n News) error {
	sms, ok, err := state.Get[contracts.SMS](tx, key)
	if err != nil || !ok {
		return err
	}
	status, known := statuses[n.Status]
	if !known || sms.SID != "" && sms.SID != n.SID {
		return nil
	}
	before := rank[sms.Status]
	if sms.SID == "" {
		before = 0 // what we had decided counts less than that the text exists all the same
	}
	sms.SID = n.SID
	if sms.SentAt.IsZero() || n.At.Before(sms.SentAt) {
		sms.SentAt = n.At
	}
	if rank[status] > before {
		sms.Status, sms.Error = status, ""
		if n.Code != 0 {
			sms.Error = strconv.Itoa(n.Code)
		}
	}
	sms.Claim, sms.LeaseUntil, sms.NotBefore = "", time.Time{}, time.Time{}
	if err := tx.Put(key, sms); err != nil {
		return err
	}
	digits := strings.TrimPrefix(sms.To, "+")
	switch sms.Kind {
	case contracts.SMSOptOutConfirmation:
		return Confirm(tx, digits, sms.SentAt)
	case contracts.SMSWelcome:
		if err := contacted(tx, sms.LeadID, sms.SentAt); err != nil {
			return err
		}
	}
	if n.Code == Unsubscribed {
		return OptOut(tx, contracts.OptOut{Phone: sms.To, OptedOutAt: n.At, Source: contracts.OptOutByProvider})
	}
	return nil
}

// statuses maps Twilio's words to ours. A text that exists at Twilio is sent, as far
// as we are concerned.
// https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
var statuses = map[string]contracts.SMSStatus{
	"accepted": contracts.SMSSent, "scheduled": contracts.SMSSent, "queued": contracts.SMSSent,
	"sending": contracts.SMSSent, "sent": contracts.SMSSent,
	"delivered": contracts.SMSDelivered, "read": contracts.SMSDelivered, "partially_delivered": contracts.SMSDelivered,
	"undelivered": contracts.SMSUndelivered,
	"failed":      contracts.SMSFailed, "canceled": contracts.SMSFailed,
}

// rank orders what Twilio says of one text, since callbacks come in any order.
var rank = map[contracts.SMSStatus]int{
	contracts.SMSSent: 1, contracts.SMSFailed: 2, contracts.SMSUndelivered: 3, contracts.SMSDelivered: 4,
}

// contacted notes on a lead that its first text was taken.
func contacted(tx *state.Tx, id string, at time.Time) error {
	if !contracts.ValidID(id) {
		return nil
	}
	lead, ok, err := state.Get[contracts.Lead](tx, contracts.KeyLead(id))
	if err != nil || !ok || !lead.ContactedAt.IsZero() && !at.Before(lead.ContactedAt) {
		return err
	}
	lead.ContactedAt = at
	lead.Settle()
	return tx.Put(contracts.KeyLead(id), lead)
}

// Confirm notes when a number's opt-out was confirmed to it; the first time counts. A
// number without an opt-out stays as it is.
func Confirm(tx *state.Tx, digits string, at time.Time) error {
	key := contracts.KeyOptOut(digits)
	o, ok, err := state.Get[contracts.OptOut](tx, key)
	if err != nil || !ok || !o.ConfirmedAt.IsZero() {
		return err
	}
	o.ConfirmedAt = at
	return tx.Put(key, o)
}

// OptOut enters that a number wants no more texts: on its own record, its contact and
// all leads of it. Of several opt-outs the earliest counts, so that they may come in
// any order. One from before an operator allowed texts again changes nothing.
func OptOut(tx *state.Tx, o contracts.OptOut) error {
	digits := strings.TrimPrefix(o.Phone, "+")
	key, contactKey := contracts.KeyOptOut(digits), contracts.KeyContact(digits)
	if err := tx.Need(key, contactKey); err != nil {
		return err
	}
	contact, known, err := state.Get[contracts.Contact](tx, contactKey)
	if err != nil {
		return err
	}
	if !Counts(contact, o.OptedOutAt) {
		return nil
	}
	if !known {
		contact = contracts.Contact{Phone: o.Phone, Leads: []string{}, Customers: []string{}}
	}
	old, ok, err := state.Get[contracts.OptOut](tx, key)
	if err != nil {
		return err
	}
	if o.Source == contracts.OptOutByProvider {
		o.ProviderBlockedAt = o.OptedOutAt // it is the provider that says so
	}
	// One from before the operator's opt-in may still stand there; it is history.
	if ok && (old.OptedOutAt.IsZero() || Counts(contact, old.OptedOutAt)) {
		o = merge(old, o)
	}
	if err := tx.Put(key, o); err != nil {
		return err
	}
	contact.OptedOutAt = o.OptedOutAt
	if err := tx.Put(contactKey, contact); err != nil {
		return err
	}
	return optOutLeads(tx, contact)
}

// merge makes one of two opt-outs of a number.
func merge(old, o contracts.OptOut) contracts.OptOut {
	out := old
	switch {
	case old.OptedOutAt.IsZero(): // written by hand, without a time
		out.OptedOutAt = o.OptedOutAt
	case o.OptedOutAt.Before(old.OptedOutAt), o.OptedOutAt.Equal(old.OptedOutAt) && o.MessageSID < old.MessageSID:
		out = o
	}
	out.ConfirmedAt = old.ConfirmedAt
	out.ProviderBlockedAt = old.ProviderBlockedAt
	if b := o.ProviderBlockedAt; out.ProviderBlockedAt.IsZero() || !b.IsZero() && b.Before(out.ProviderBlockedAt) {
		out.ProviderBlockedAt = b
	}
	return out
}

func optOutLeads(tx *state.Tx, contact contracts.Contact) error {
	keys := make([]string, len(contact.Leads))
	for i, id := range contact.Leads {
		keys[i] = contracts.KeyLead(id)
	}
	if err := tx.Need(keys...); err != nil {
		return err
	}
	for _, key := range keys {
		lead, ok, err := state.Get[contracts.Lead](tx, key)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		lead.OptedOutAt = contact.OptedOutAt
		lead.Settle()
		if err := tx.Put(key, lead); err != nil {
			return err
		}
	}
	return nil
}

// Counts says whether an opt-out of that time still counts: it does, unless an
// operator has allowed texts to the contact again since.
func Counts(c contracts.Contact, optedOutAt time.Time) bool {
	return c.OptedInAt.IsZero() || optedOutAt.After(c.OptedInAt)
}
