// Package consent is the one place that says whether a number has opted out of texts, and
// the one that changes it.
//
// A number's record, optout.<phone>, keeps every word: opt-outs by text, by the provider
// and by an operator, and opt-ins, which an operator alone may give. They are sorted by
// time, so that they may be entered in any order and twice, and the last one decides. The
// contact and all leads of the number are marked in the same commit; every claim of a
// text writes the contact too, so that a claim and an opt-out can't cross.
package consent

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/state"
)

const (
	// mostWords bounds a number's history; the newest stay.
	mostWords = 100
	// leadsAtOnce is how many leads of a number one commit marks.
	leadsAtOnce = 400
)

// Out says whether a number, given as digits, has opted out. It is the only definition.
func Out(tx *state.Tx, digits string) (bool, error) {
	o, _, known, err := read(tx, digits)
	return known && IsOut(o), err
}

// IsOut says whether the last word of a record is an opt-out; of two in the same moment it
// is. One that was written by hand may have no time.
func IsOut(o contracts.OptOut) bool { return !o.OptedOutAt.Before(o.OptedInAt) }

// Counts says whether an opt-out of that time still counts for a contact: it does, unless
// an operator has allowed texts again since.
func Counts(c contracts.Contact, at time.Time) bool {
	return c.OptedInAt.IsZero() || !at.Before(c.OptedInAt)
}

// Unclear says whether a person has yet to decide what the number's last words meant.
func Unclear(c contracts.Contact) bool { return c.UnclearAt.After(c.ClearedAt) }

// Enter adds a word to what a number has said, and marks its contact and its leads by
// what is true then. blocked: the provider itself takes no more texts to it. The same
// word again changes nothing. More leads than one commit takes are marked in steps
// (state.Tx.Again). An error is the transaction's, to be returned as it is.
func Enter(tx *state.Tx, phone string, w contracts.Word, blocked bool) error {
	digits := strings.TrimPrefix(phone, "+")
	o, contact, _, err := read(tx, digits)
	if err != nil {
		return err
	}
	o.Phone = phone
	o.History = insert(o.History, w)
	tell(&o)
	if blocked && (o.ProviderBlockedAt.IsZero() || w.At.Before(o.ProviderBlockedAt)) {
		o.ProviderBlockedAt = w.At
	}
	if err := tx.Put(contracts.KeyOptOut(digits), o); err != nil {
		return err
	}
	return mark(tx, phone, o, contact)
}

// Mirror marks a number's contact and leads by its record, which an operator may have
// written by hand.
func Mirror(tx *state.Tx, phone string) error {
	o, contact, known, err := read(tx, strings.TrimPrefix(phone, "+"))
	if err != nil || !known {
		return err
	}
	return mark(tx, phone, o, contact)
}

// read gives a number's record with its whole history, and its contact. known is false
// where the number has never said anything.
func read(tx *state.Tx, digits string) (o contracts.OptOut, contact contracts.Contact, known bool, err error) {
	key, contactKey := contracts.KeyOptOut(digits), contracts.KeyContact(digits)
	if err := tx.Need(key, contactKey); err != nil {
		return o, contact, false, err
	}
	if contact, _, err = state.Get[contracts.Contact](tx, contactKey); err != nil {
		return o, contact, false, err
	}
	o, ok, err := state.Get[contracts.OptOut](tx, key)
	if err != nil {
		return o, contact, false, err
	}
	// The former release kept the first opt-out in the record, and an operator's opt-in in
	// the contact, with the record deleted.
	if !ok && !contact.OptedOutAt.IsZero() {
		o, ok = contracts.OptOut{OptedOutAt: contact.OptedOutAt, Source: contracts.OptOutByOperator}, true
	}
	if len(o.History) == 0 && !o.OptedOutAt.IsZero() {
		o.History = []contracts.Word{{At: o.OptedOutAt, Kind: contracts.WordOptOut, Source: o.Source, Keyword: o.Keyword, Message: o.MessageSID}}
	}
	if at := contact.OptedInAt; !at.IsZero() && !slices.ContainsFunc(o.History, func(w contracts.Word) bool { return w.Kind == contracts.WordOptIn && !w.At.Before(at) }) {
		o.History = insert(o.History, contracts.Word{At: at, Kind: contracts.WordOptIn, Source: contracts.OptOutByOperator})
	}
	if len(o.History) > 0 {
		tell(&o)
	}
	return o, contact, ok, nil
}

// insert adds a word to a sorted history, once.
func insert(history []contracts.Word, w contracts.Word) []contracts.Word {
	// Of an opt-in and an opt-out in the same moment the opt-out is the last word.
	compare := func(a, b contracts.Word) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Kind, b.Kind), strings.Compare(string(a.Source), string(b.Source)), strings.Compare(a.Message, b.Message))
	}
	i, found := slices.BinarySearchFunc(history, w, compare)
	if found {
		return history
	}
	history = slices.Insert(slices.Clone(history), i, w)
	return history[max(0, len(history)-mostWords):]
}

// tell computes what a record says from its history: the first opt-out since the last
// opt-in, or since ever, and the last opt-in.
func tell(o *contracts.OptOut) {
	o.OptedOutAt, o.OptedInAt, o.Keyword, o.MessageSID, o.Source = time.Time{}, time.Time{}, "", "", ""
	is := false
	for _, w := range o.History {
		switch {
		case w.Kind == contracts.WordOptIn:
			o.OptedInAt, is = w.At, false
		case !is:
			o.OptedOutAt, o.Keyword, o.MessageSID, o.Source, is = w.At, w.Keyword, w.Message, w.Source, true
		}
	}
	if o.Source == "" { // opted in without ever having been out
		o.Source = contracts.OptOutByOperator
	}
}

// mark writes what a record says to the number's contact and leads.
func mark(tx *state.Tx, phone string, o contracts.OptOut, contact contracts.Contact) error {
	digits := strings.TrimPrefix(phone, "+")
	if contact.Phone == "" {
		contact = contracts.Contact{Phone: phone, Leads: []string{}, Customers: []string{},
			UnclearAt: contact.UnclearAt, ClearedAt: contact.ClearedAt, AskedAt: contact.AskedAt}
	}
	contact.OptedOutAt, contact.OptedInAt = time.Time{}, o.OptedInAt
	if IsOut(o) {
		contact.OptedOutAt = o.OptedOutAt
		if contact.OptedOutAt.IsZero() { // written by hand, without a time
			contact.OptedOutAt = unknownTime
		}
	}
	if n := len(o.History); n > 0 && Unclear(contact) && o.History[n-1].At.After(contact.ClearedAt) {
		contact.ClearedAt = o.History[n-1].At // whatever was unclear before is clear now
	}
	if err := tx.Put(contracts.KeyContact(digits), contact); err != nil {
		return err
	}
	return markLeads(tx, contact)
}

// unknownTime stands for the time of an opt-out that has none.
var unknownTime = time.Unix(0, 0).UTC()

// markLeads gives all leads of a contact its opt-out, some hundreds a step.
func markLeads(tx *state.Tx, contact contracts.Contact) error {
	keys := make([]string, len(contact.Leads))
	for i, id := range contact.Leads {
		keys[i] = contracts.KeyLead(id)
	}
	if err := tx.Need(keys...); err != nil {
		return err
	}
	marked := 0
	for _, key := range keys {
		seen, ok, err := state.Peek[contracts.Lead](tx, key)
		if err != nil {
			return err
		}
		if !ok || seen.OptedOutAt.Equal(contact.OptedOutAt) {
			continue
		}
		if marked == leadsAtOnce {
			tx.Again()
			return nil
		}
		marked++
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
