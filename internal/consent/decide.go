package consent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// ErrNewerStop refuses an opt-in: the number has said STOP after what the opt-in would
// answer.
var ErrNewerStop = errors.New("the number has opted out after the request that this would answer")

// ErrNotOut says that there is nothing to undo.
var ErrNotOut = errors.New("the number has not opted out")

// A Standing is what an operator is shown before deciding.
type Standing struct {
	Phone      string           `json:"phone"`
	Out        bool             `json:"opted_out"`
	OptedOutAt time.Time        `json:"opted_out_at,omitzero"`
	OptedInAt  time.Time        `json:"opted_in_at,omitzero"`
	AskedAt    time.Time        `json:"asked_at,omitzero"` // the last START
	Unclear    bool             `json:"unclear"`           // a text waits for a person's decision
	Leads      int              `json:"leads"`
	Customers  int              `json:"customers"`
	History    []contracts.Word `json:"history"`
}

// Look gives a number's standing.
func Look(tx *state.Tx, phone string) (Standing, error) {
	o, contact, known, err := read(tx, strings.TrimPrefix(phone, "+"))
	if err != nil {
		return Standing{}, err
	}
	return Standing{Phone: phone, Out: known && IsOut(o), OptedOutAt: o.OptedOutAt, OptedInAt: o.OptedInAt, AskedAt: contact.AskedAt,
		Unclear: Unclear(contact), Leads: len(contact.Leads), Customers: len(contact.Customers), History: o.History}, nil
}

// OptOut is an operator's decision that a number gets no more texts.
func OptOut(tx *state.Tx, phone string, at time.Time) error {
	if err := settle(tx, phone, at); err != nil {
		return err
	}
	return Enter(tx, phone, contracts.Word{At: at, Kind: contracts.WordOptOut, Source: contracts.OptOutByOperator}, false)
}

// OptIn is an operator's decision that a number may be texted again, as of at, in answer
// to a request of the time request; zero: to the last START. ErrNewerStop where the
// number has opted out after the request, ErrNotOut where nothing is to be undone.
func OptIn(tx *state.Tx, phone string, at, request time.Time) error {
	s, err := Look(tx, phone)
	if err != nil {
		return err
	}
	if !s.Out && !s.OptedInAt.Equal(at) { // at: this decision, which goes on in steps
		return ErrNotOut
	}
	if request.IsZero() {
		request = s.AskedAt
	}
	if request.IsZero() {
		request = at // asked in person, just now
	}
	for _, w := range s.History {
		if w.Kind == contracts.WordOptOut && w.At.After(request) {
			return ErrNewerStop
		}
	}
	if err := settle(tx, phone, at); err != nil {
		return err
	}
	return Enter(tx, phone, contracts.Word{At: at, Kind: contracts.WordOptIn, Source: contracts.OptOutByOperator}, false)
}

// NoOptOut is an operator's decision that what a number has said up to at was no opt-out.
func NoOptOut(tx *state.Tx, phone string, at time.Time) error {
	key := contracts.KeyContact(strings.TrimPrefix(phone, "+"))
	contact, ok, err := state.Get[contracts.Contact](tx, key)
	if err != nil {
		return err
	}
	if err := settle(tx, phone, at); err != nil {
		return err
	}
	if !ok || !at.After(contact.ClearedAt) {
		return nil
	}
	contact.ClearedAt = at
	if err := tx.Put(key, contact); err != nil {
		return err
	}
	return release(tx, contact, at)
}

// release changes the welcomes that waited for the decision, so that the durable sms sees
// them at once.
func release(tx *state.Tx, contact contracts.Contact, at time.Time) error {
	keys := make([]string, len(contact.Leads))
	for i, lead := range contact.Leads {
		keys[i] = contracts.KeySMS(contracts.SMSWelcome, lead)
	}
	if err := tx.Need(keys...); err != nil {
		return err
	}
	for _, key := range keys {
		text, ok, err := state.Peek[contracts.SMS](tx, key)
		if err != nil {
			return err
		}
		if !ok || text.Status != contracts.SMSQueued || !text.NotBefore.Before(at) {
			continue
		}
		if text, _, err = state.Get[contracts.SMS](tx, key); err != nil {
			return err
		}
		text.NotBefore = at
		if err := tx.Put(key, text); err != nil {
			return err
		}
	}
	return nil
}

// settle closes what waited for an operator's decision about a number.
func settle(tx *state.Tx, phone string, at time.Time) error {
	if err := incident.Resolve(tx, unclearID(phone), at); err != nil {
		return err
	}
	return incident.Resolve(tx, startID(phone), at)
}

// AskUnclear notes that a text of a number may have meant an opt-out, and asks a person.
func AskUnclear(tx *state.Tx, phone string, m contracts.Message) error {
	contact, err := note(tx, phone, func(c *contracts.Contact) { c.UnclearAt = later(c.UnclearAt, m.OccurredAt()) })
	if err != nil || !Unclear(contact) {
		return err
	}
	gone, err := Out(tx, strings.TrimPrefix(phone, "+"))
	if err != nil || gone {
		return err // it gets no texts anyway
	}
	return incident.Raise(tx, incident.Report{
		ID: unclearID(phone), Consumer: contracts.Optouts, Reason: outcome.Waiting, Severity: contracts.SeverityWarning, At: m.OccurredAt(), Message: m,
		Text:   "a text has a word of an opt-out and may mean something else; no welcome goes to that number until a person has decided",
		Action: "consumers opt-out " + phone + "   # or: consumers no-opt-out " + phone,
	})
}

// AskOptIn notes that a number has asked to be texted again, and asks a person.
func AskOptIn(tx *state.Tx, phone string, m contracts.Message) error {
	if _, err := note(tx, phone, func(c *contracts.Contact) { c.AskedAt = later(c.AskedAt, m.OccurredAt()) }); err != nil {
		return err
	}
	s, err := Look(tx, phone)
	if err != nil || s.AskedAt.Before(s.OptedInAt) {
		return err // it has been answered
	}
	for _, w := range s.History {
		if w.Kind == contracts.WordOptOut && w.At.After(s.AskedAt) {
			return nil // the number has thought better of it
		}
	}
	return incident.Raise(tx, incident.Report{
		ID: startID(phone), Consumer: contracts.Optouts, Reason: outcome.Waiting, Severity: contracts.SeverityInfo, At: m.OccurredAt(), Message: m,
		Text:   "a number asks to be texted again; nothing was changed, a person has to decide",
		Action: "consumers opt-in " + phone,
	})
}

// note changes what a contact remembers, and gives it as it is then.
func note(tx *state.Tx, phone string, change func(*contracts.Contact)) (contracts.Contact, error) {
	key := contracts.KeyContact(strings.TrimPrefix(phone, "+"))
	c, ok, err := state.Get[contracts.Contact](tx, key)
	if err != nil {
		return c, err
	}
	if !ok {
		c = contracts.Contact{Phone: phone, Leads: []string{}, Customers: []string{}}
	}
	change(&c)
	return c, tx.Put(key, c)
}

// unclearID and startID name the incidents of a number, which they don't show.
func unclearID(phone string) string { return "optouts-unclear-" + tag(phone) }
func startID(phone string) string   { return "optouts-start-" + tag(phone) }

func tag(phone string) string {
	sum := sha256.Sum256([]byte("consent " + phone))
	return hex.EncodeToString(sum[:6])
}

// CloseStart closes the question whether a number may be texted again, which its STOP has
// answered.
func CloseStart(tx *state.Tx, phone string, at time.Time) error {
	return incident.Resolve(tx, startID(phone), at)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
