// Package delivery is what follows from the news of a text: that Twilio took it, that
// it arrived or did not, that its number wants no more. The news comes as an answer to
// the sender, from Twilio's message list, or by webhook, and must change the records
// in the same way. Every function is a decision over a transaction; see package state.
package delivery

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/state"
)

// Unsubscribed is Twilio's error code of a text to a number that opted out there.
const Unsubscribed = 21610

// News is what Twilio says about one text.
type News struct {
	SID     string
	Status  string            // Twilio's word: "accepted", "delivered", …
	Code    int               // Twilio's error code, or 0
	At      time.Time         // when it was so; of a text that was taken, when that was
	Message contracts.Message // the webhook that said so; zero: an answer to a call
}

// Record enters the news of the text that key names, and what follows from it: a lead
// is contacted, an opt-out confirmed, a number opted out; and none of these where the
// text did not arrive. A status never goes back. No such text, or a status that Twilio
// has invented since: nothing changes.
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
	was := sms.SentAt
	if sms.SentAt.IsZero() || n.At.Before(sms.SentAt) {
		sms.SentAt = n.At
	}
	news := rank[status] > before
	if news {
		sms.Status, sms.Error = status, ""
		if n.Code != 0 {
			sms.Error = strconv.Itoa(n.Code)
		}
	}
	sms.Claim, sms.LeaseUntil, sms.NotBefore = "", time.Time{}, time.Time{}
	if err := tx.Put(key, sms); err != nil {
		return err
	}
	if contracts.ValidID(n.SID) {
		if err := tx.Put(contracts.KeyTextIndex(n.SID), contracts.TextIndex{Key: key}); err != nil {
			return err
		}
	}
	if err := arrived(tx, sms, n, was); err != nil {
		return err
	}
	switch {
	case !news:
		return nil
	case sms.Status == contracts.SMSDelivered:
		return closeLost(tx, n.At)
	case lost(sms) && n.Code != Unsubscribed:
		return raiseLost(tx, sms, n)
	}
	return nil
}

// lost says whether a text did not arrive.
func lost(sms contracts.SMS) bool {
	return sms.Status == contracts.SMSUndelivered || sms.Status == contracts.SMSFailed
}

// arrived makes what a text says true of its number, or takes it back. was is when the
// text was sent, as far as we knew before: a webhook that was on its way while its text's
// call was answered may say an earlier time.
func arrived(tx *state.Tx, sms contracts.SMS, n News, was time.Time) error {
	digits := strings.TrimPrefix(sms.To, "+")
	at := sms.SentAt
	if lost(sms) {
		at = time.Time{}
	}
	switch sms.Kind {
	case contracts.SMSOptOutConfirmation:
		if n.Code == Unsubscribed {
			at = sms.SentAt // Twilio has told the number itself
		}
		return confirmed(tx, digits, at, was, sms.SentAt)
	case contracts.SMSWelcome:
		if err := contacted(tx, sms.LeadID, at, was, sms.SentAt); err != nil {
			return err
		}
	}
	if n.Code == Unsubscribed {
		return consent.Enter(tx, sms.To, contracts.Word{At: n.At, Kind: contracts.WordOptOut, Source: contracts.OptOutByProvider}, true)
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

// Word is a status as Twilio says it, or "other" for one that it has invented since.
func Word(status string) string {
	if _, known := statuses[status]; known {
		return status
	}
	return "other"
}

// rank orders what Twilio says of one text, since callbacks come in any order.
var rank = map[contracts.SMSStatus]int{
	contracts.SMSSent: 1, contracts.SMSFailed: 2, contracts.SMSUndelivered: 3, contracts.SMSDelivered: 4,
}

// contacted notes on a lead that its first text was taken at a time; zero: that the one
// which was taken at one of was did not arrive.
func contacted(tx *state.Tx, id string, at time.Time, was ...time.Time) error {
	if !contracts.ValidID(id) {
		return nil
	}
	lead, ok, err := state.Get[contracts.Lead](tx, contracts.KeyLead(id))
	if err != nil || !ok {
		return err
	}
	switch {
	case at.IsZero() && isOne(lead.ContactedAt, was):
		lead.ContactedAt = time.Time{}
	case !at.IsZero() && (lead.ContactedAt.IsZero() || at.Before(lead.ContactedAt)):
		lead.ContactedAt = at
	default:
		return nil
	}
	lead.Settle()
	return tx.Put(contracts.KeyLead(id), lead)
}

// Confirm notes when a number's opt-out was confirmed to it; the first time counts. A
// number without an opt-out stays as it is.
func Confirm(tx *state.Tx, digits string, at time.Time) error {
	return confirmed(tx, digits, at)
}

// confirmed is Confirm; with a zero time it takes back the confirmation that was sent at one
// of was, and with an earlier one corrects it.
func confirmed(tx *state.Tx, digits string, at time.Time, was ...time.Time) error {
	key := contracts.KeyOptOut(digits)
	o, ok, err := state.Get[contracts.OptOut](tx, key)
	if err != nil || !ok {
		return err
	}
	switch {
	case at.IsZero() && isOne(o.ConfirmedAt, was):
		o.ConfirmedAt = time.Time{}
	case !at.IsZero() && (o.ConfirmedAt.IsZero() || at.Before(o.ConfirmedAt) && isOne(o.ConfirmedAt, was)):
		o.ConfirmedAt = at
	default:
		return nil
	}
	return tx.Put(key, o)
}

// isOne says whether a time that was noted is one of those.
func isOne(noted time.Time, of []time.Time) bool {
	return !noted.IsZero() && slices.ContainsFunc(of, noted.Equal)
}
