// Package trace tells what happened to one lead, person, payment or text, in the order
// of time: the webhooks that came, the records that they made, the texts with their
// statuses, the incidents. It only reads, with the rights of the consumers.
//
// Keys and indexes lead from an id to its records. Of the webhooks, those of Twilio are
// found by their subjects; those of Stripe and Meta have subjects that name nobody, so
// where one of their ids is asked for, these are read once, from the oldest to the newest.
package trace

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/phone"
)

// Kind is what an id names.
type Kind string

// The kinds of ids.
const (
	Phone        Kind = "phone"
	Email        Kind = "email"
	Lead         Kind = "lead"
	Customer     Kind = "customer"     // cus_…, or the checkout session of a guest, cs_…
	Subscription Kind = "subscription" // sub_…
	Invoice      Kind = "invoice"      // in_…
	Event        Kind = "event"        // evt_…
	Text         Kind = "text"         // SM… or MM…, one of ours or one that came in
)

// ErrNoID says that a text is none of the ids that can be asked for.
var ErrNoID = errors.New("not a phone, an e-mail, a lead's id, cus_…, sub_…, in_…, evt_… or a Twilio SID")

// A Story is everything that is known about an id.
type Story struct {
	ID    string `json:"id"`   // as it is kept: a number is E.164, an address in small letters
	Kind  Kind   `json:"kind"` // what it names
	Steps []Step `json:"steps"`
	Read  uint64 `json:"read"` // how many webhooks were looked at
}

// The kinds of steps.
const (
	StepWebhook  = "webhook"
	StepRecord   = "record"
	StepText     = "text"
	StepIncident = "incident"
)

// A Step is one thing that happened.
type Step struct {
	At       time.Time `json:"at"`                 // a webhook: received; a record: last changed; else when it happened
	Kind     string    `json:"kind"`               // "webhook", "record", "text" or "incident"
	Title    string    `json:"title"`              // "payment_failed text sent"
	Detail   string    `json:"detail,omitempty"`   // what it says, perhaps a person's words
	Stream   string    `json:"stream,omitempty"`   // "WEBHOOKS" or "KV_crm"
	Sequence uint64    `json:"sequence,omitempty"` // in that stream
	Subject  string    `json:"subject,omitempty"`  // of a webhook
	Key      string    `json:"key,omitempty"`      // of a record
}

// Options say how to read.
type Options struct {
	Region   string                // of numbers without a country's prefix
	Progress func(read, of uint64) // told now and then while webhooks are read; may be nil
}

// Find tells the story of an id. One that names nothing that is known has no steps. The
// error is ErrNoID, or what kept it from reading.
func Find(ctx context.Context, js jetstream.JetStream, id string, o Options) (Story, error) {
	f := &finder{ctx: ctx, js: js, o: o, records: map[string]contracts.Message{}, asked: map[string]bool{}, leaves: map[string]bool{},
		needles: map[string]bool{}, ids: map[string]bool{}, subjects: map[string]bool{}, sids: map[string]bool{}, webhooks: map[uint64]contracts.Message{}}
	s := Story{Steps: []Step{}}
	var err error
	if s.ID, s.Kind, err = f.classify(id); err != nil {
		return s, err
	}
	if err := f.find(s.ID, s.Kind); err != nil {
		return s, err
	}
	incidents, err := f.incidents()
	if err != nil {
		return s, err
	}
	s.Steps, s.Read = append(s.Steps, f.tell(incidents)...), f.read
	slices.SortStableFunc(s.Steps, func(a, b Step) int { return a.At.Compare(b.At) })
	return s, nil
}

var (
	sid    = regexp.MustCompile(`^(?:SM|MM)[0-9a-fA-F]{32}$`)
	digits = regexp.MustCompile(`^[1-9][0-9]{6,}$`)
)

// classify says what an id names, and how it is spelled in keys. Digits alone may be a
// lead's id or a number as keys have it: a lead or a number that is known decides.
func (f *finder) classify(id string) (string, Kind, error) {
	id = strings.TrimSpace(id)
	for prefix, kind := range map[string]Kind{"cus_": Customer, "cs_": Customer, "sub_": Subscription, "in_": Invoice, "evt_": Event} {
		if strings.HasPrefix(id, prefix) && contracts.ValidID(id) {
			return id, kind, nil
		}
	}
	switch {
	case sid.MatchString(id):
		return id, Text, nil
	case strings.Contains(id, "@") && !strings.ContainsAny(id, " \t\r\n"):
		return strings.ToLower(id), Email, nil
	case digits.MatchString(id):
		return f.digits(id)
	}
	if n, err := phone.Parse(id, f.o.Region); err == nil {
		return string(n), Phone, nil
	}
	if contracts.ValidID(id) && strings.ContainsAny(id, "0123456789") {
		return id, Lead, nil
	}
	return "", "", ErrNoID
}

func (f *finder) digits(id string) (string, Kind, error) {
	if _, err := f.fetched([]string{contracts.KeyLead(id), contracts.KeyContact(id), contracts.KeyOptOut(id)}); err != nil {
		return "", "", err
	}
	n, unreadable := phone.Parse("+"+id, f.o.Region)
	_, lead := f.records[contracts.KeyLead(id)]
	known := len(f.records) > 0 // a contact or an opt-out
	f.records, f.asked = map[string]contracts.Message{}, map[string]bool{}
	if !lead && unreadable == nil && (known || len(id) < 13) { // ids of Meta's have fifteen digits and more
		return string(n), Phone, nil
	}
	return id, Lead, nil
}
