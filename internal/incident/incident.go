// Package incident opens, counts and closes the incident.* records: what a person has to
// look at. It is the only place that writes them.
//
// An incident is a cause, not an occurrence. The same cause again raises its count; the
// same occurrence again, in a replay, changes nothing. It is closed by whatever mends it:
//
//   - a message that failed, by the same message (or a newer revision of the same key)
//     when it goes through, see Failed and Succeeded;
//   - a consumer that waits for its provider, by the next success, see Blocked and Unblocked;
//   - anything else, by the code that reported it, see Raise and Resolve.
//
// However much goes wrong, at most 100 are open: beyond half of that, further ones of one
// consumer and reason join one record. The record index.incidents lists those that are
// open, so that all this is decided in the transaction that the incident belongs to.
package incident

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

const (
	// MostOpen is the most incidents that are open at a time.
	MostOpen = 100
	// mostAlone is how many are open before further ones join that of their consumer and
	// reason, and mostJoined before they join that of their consumer.
	mostAlone  = 50
	mostJoined = 80
	// mostMembers bounds the causes and keys that a joined incident remembers.
	mostMembers = 1000
	// longestReason bounds a reason, in which a provider may have said anything.
	longestReason = 500
)

// The kinds of an open incident: of messages that failed, of a consumer that waits, of
// anything else.
const (
	kindMessage = "message"
	kindGate    = "gate"
	kindReport  = "report"
)

// A Report is one occurrence of something that a person has to look at.
type Report struct {
	// ID is the cause, and the key's last part: "sms-undelivered-30007-2026-11-26".
	ID       string
	Consumer string         // the durable
	Reason   outcome.Reason // under which it joins others when too many are open
	Severity contracts.Severity
	At       time.Time         // when it happened, never when it was processed
	Message  contracts.Message // where; without a sequence, a later At is what makes an occurrence a new one
	Text     string            // one sentence
	Action   string            // the exact command; empty: the replay of Message
}

// Raise opens the incident of a report, or counts one more occurrence in it. An
// occurrence that was counted already, or that is older than what closed the incident,
// changes nothing. An error is the transaction's, to be returned as it is.
func Raise(tx *state.Tx, r Report) error { return raise(tx, r, kindReport, r.ID) }

// Resolve closes the incident of that cause, as of at. One that is not there, or closed,
// stays as it is.
func Resolve(tx *state.Tx, id string, at time.Time) error {
	// A peek, since this is asked after every success and nearly always about nothing.
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	for _, o := range index.Open {
		if o.Kind != kindReport || o.ID != id && !o.Joined {
			continue
		}
		i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(o.ID))
		if err != nil || !ok {
			return err
		}
		if o.ID != id {
			if !slices.Contains(i.Members, id) {
				continue
			}
			i.Members = slices.DeleteFunc(slices.Clone(i.Members), func(m string) bool { return m == id })
			if len(i.Members) > 0 {
				return tx.Put(contracts.KeyIncident(o.ID), i)
			}
		}
		return closeIt(tx, i, at)
	}
	return nil
}

// Failed opens the incident of a message that its durable gave up, or enters the message
// in the one that is open for it. The same failure again changes nothing.
func Failed(tx *state.Tx, durable string, m contracts.Message, o *outcome.Error) error {
	if strings.HasPrefix(m.Subject, contracts.SubjectOfKey(contracts.KeyIncident(""))) {
		return nil // an incident about an incident would never end
	}
	member := ""
	if m.Stream == contracts.StreamCRM {
		member = m.Subject // the key's next revision stands for this one
	}
	return raise(tx, Report{
		ID: fmt.Sprintf("%s-%d", durable, m.Sequence), Consumer: durable, Reason: o.Reason, Severity: contracts.SeverityWarning,
		At: m.Time.UTC(), Message: m, Text: o.Error(),
	}, kindMessage, member)
}

// Succeeded closes what is open about a message that went through: the message itself,
// or, of a record of the bucket, an earlier revision of it. at is now: the one time in
// a record that is nobody's event, and it is set once.
func Succeeded(tx *state.Tx, durable string, m contracts.Message, at time.Time) error {
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	for _, o := range index.Open {
		if !concerns(o, durable, m) {
			continue
		}
		i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(o.ID))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if m.Stream == contracts.StreamCRM {
			n := len(i.Members)
			i.Members = slices.DeleteFunc(slices.Clone(i.Members), func(s string) bool { return s == m.Subject })
			if len(i.Members) == n {
				continue
			}
			if len(i.Members) == 0 {
				i.Open = nil
			}
		} else {
			if !i.Open.Has(m.Sequence) {
				continue
			}
			i.Open = i.Open.Without(m.Sequence)
		}
		if len(i.Open) == 0 {
			err = closeIt(tx, i, at)
		} else {
			err = store(tx, i, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Concerns says whether an incident that is open may be closed by a message that goes
// through, so that those without any need no transaction.
func Concerns(index contracts.IncidentIndex, durable string, m contracts.Message) bool {
	return slices.ContainsFunc(index.Open, func(o contracts.OpenIncident) bool { return concerns(o, durable, m) })
}

func concerns(o contracts.OpenIncident, durable string, m contracts.Message) bool {
	switch {
	case o.Kind != kindMessage || o.Consumer != durable:
		return false
	case m.Stream == contracts.StreamCRM:
		return o.Joined || o.Subject == m.Subject
	}
	return o.First <= m.Sequence && m.Sequence <= o.Last
}

// Blocked opens the incident of a consumer whose provider refuses it as a whole.
func Blocked(tx *state.Tx, durable string, m contracts.Message, o *outcome.Error, at time.Time) error {
	id := durable + "-" + string(o.Reason)
	index, err := open(tx)
	if err != nil || slices.ContainsFunc(index.Open, func(o contracts.OpenIncident) bool { return o.ID == id }) {
		return err
	}
	return raise(tx, Report{
		ID: id, Consumer: durable, Reason: o.Reason, Severity: contracts.SeverityError, At: at,
		Message: contracts.Message{Stream: m.Stream, Subject: m.Subject},
		Text:    "everything of " + durable + " waits and nothing is lost; it goes on by itself once this is mended: " + o.Error(),
		Action:  "nats consumer info " + m.Stream + " " + durable,
	}, kindGate, "")
}

// Unblocked closes the incidents of a consumer that waited and goes on.
func Unblocked(tx *state.Tx, durable string, at time.Time) error {
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	for _, o := range index.Open {
		if o.Kind != kindGate || o.Consumer != durable {
			continue
		}
		i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(o.ID))
		if err != nil {
			return err
		}
		if ok {
			if err := closeIt(tx, i, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// raise enters an occurrence. member is what a joined incident remembers of it.
func raise(tx *state.Tx, r Report, kind, member string) error {
	joined, crowd := joinedID(r, kind), r.Consumer+"-many-"+kind
	keys := []string{contracts.KeyIncidentIndex, contracts.KeyIncident(r.ID), contracts.KeyIncident(joined), contracts.KeyIncident(crowd)}
	if err := tx.Need(keys...); err != nil {
		return err
	}
	index, err := open(tx)
	if err != nil {
		return err
	}
	// An occurrence belongs where it was counted first, and a cause to its open incident.
	for _, id := range []string{r.ID, joined, crowd} {
		i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(id))
		if err != nil {
			return err
		}
		if ok && counted(i, r) {
			return again(tx, i, r, kind, member, id != r.ID)
		}
		if ok && id == r.ID {
			return count(tx, i, r, kind, member, false)
		}
	}
	id := r.ID
	switch n := len(index.Open); {
	case n >= mostJoined && !isOpen(index, joined):
		id = crowd
	case n >= mostAlone:
		id = joined
	}
	i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(id))
	if err != nil {
		return err
	}
	if !ok {
		i = contracts.Incident{
			ID: id, At: r.At, Severity: r.Severity, Consumer: r.Consumer, Stream: r.Message.Stream,
			Sequence: r.Message.Sequence, Subject: r.Message.Subject,
		}
	}
	return count(tx, i, r, kind, member, id != r.ID)
}

func joinedID(r Report, kind string) string {
	return fmt.Sprintf("%s-many-%s-%s", r.Consumer, kind, cmp.Or(r.Reason, outcome.Internal))
}

func isOpen(index contracts.IncidentIndex, id string) bool {
	return slices.ContainsFunc(index.Open, func(o contracts.OpenIncident) bool { return o.ID == id })
}

// counted says whether an incident has the occurrence already.
func counted(i contracts.Incident, r Report) bool {
	if r.Message.Sequence != 0 {
		return i.Seen.Has(r.Message.Sequence)
	}
	return !r.At.After(i.LastAt) && (i.ID == r.ID || slices.Contains(i.Members, r.ID))
}

// again enters an occurrence that was counted: of a message that failed, was mended and
// fails once more, the incident is open again. Of anything else nothing changes.
func again(tx *state.Tx, i contracts.Incident, r Report, kind, member string, joined bool) error {
	if kind != kindMessage || i.Open.Has(r.Message.Sequence) {
		return nil
	}
	return fill(tx, i, r, kind, member, joined)
}

// count enters a new occurrence.
func count(tx *state.Tx, i contracts.Incident, r Report, kind, member string, joined bool) error {
	if !i.ResolvedAt.IsZero() && kind == kindReport && !r.At.After(i.ResolvedAt) {
		return nil // it was mended since
	}
	i.Count++
	if r.Message.Sequence != 0 {
		i.Seen = i.Seen.With(r.Message.Sequence)
	}
	if r.At.Before(i.At) {
		i.At = r.At
	}
	return fill(tx, i, r, kind, member, joined)
}

// fill opens an incident, with the words of the occurrence if it is the latest.
func fill(tx *state.Tx, i contracts.Incident, r Report, kind, member string, joined bool) error {
	if kind == kindMessage {
		i.Open = i.Open.With(r.Message.Sequence)
	}
	if (joined || kind == kindMessage) && member != "" && len(i.Members) < mostMembers && !slices.Contains(i.Members, member) {
		i.Members = append(slices.Clone(i.Members), member)
	}
	if i.Reason == "" || !r.At.Before(i.LastAt) {
		i.Reason, i.LastAt = shorten(r.Text), r.At
		i.Severity = r.Severity
		i.Action = r.Action
	}
	i.ResolvedAt = time.Time{}
	o := contracts.OpenIncident{ID: i.ID, Consumer: r.Consumer, Kind: kind, Reason: string(r.Reason), Joined: joined}
	if kind == kindMessage && !joined && r.Message.Stream == contracts.StreamCRM {
		o.Subject = r.Message.Subject
	}
	if joined {
		i.Reason = shorten(fmt.Sprintf("%d alike, the latest: %s", i.Count, r.Text))
	}
	if i.Action == "" || kind == kindMessage {
		i.Action = replay(i, r.Consumer)
	}
	return store(tx, i, o)
}

// replay is the command that handles the messages of an incident again.
func replay(i contracts.Incident, durable string) string {
	first := i.Sequence
	if len(i.Open) > 0 {
		first = i.Open[0].First
	}
	if i.Stream == "" || first == 0 {
		return "nats kv get " + contracts.Bucket + " " + contracts.KeyIncident(i.ID)
	}
	return fmt.Sprintf("nats consumer reset %s %s --sequence %d --force", i.Stream, durable, first)
}

// store writes an incident that is open, and its line in the index.
func store(tx *state.Tx, i contracts.Incident, o contracts.OpenIncident) error {
	o.First, o.Last = 0, 0
	if o.Kind == kindMessage && i.Stream == contracts.StreamWebhooks && len(i.Open) > 0 {
		o.First, o.Last = i.Open[0].First, i.Open[len(i.Open)-1].Last
		i.Action = replay(i, o.Consumer)
	}
	index, err := open(tx)
	if err != nil {
		return err
	}
	at, found := slices.BinarySearchFunc(index.Open, o.ID, byID)
	if found {
		index.Open[at] = o
	} else {
		index.Open = slices.Insert(index.Open, at, o)
	}
	if err := tx.Put(contracts.KeyIncidentIndex, index); err != nil {
		return err
	}
	return tx.Put(contracts.KeyIncident(i.ID), i)
}

// closeIt writes an incident that is mended, and takes it out of the index.
func closeIt(tx *state.Tx, i contracts.Incident, at time.Time) error {
	index, err := open(tx)
	if err != nil {
		return err
	}
	if n, found := slices.BinarySearchFunc(index.Open, i.ID, byID); found {
		index.Open = slices.Delete(index.Open, n, n+1)
		if err := tx.Put(contracts.KeyIncidentIndex, index); err != nil {
			return err
		}
	}
	i.ResolvedAt, i.Members, i.Open = at.UTC().Truncate(time.Second), nil, nil
	return tx.Put(contracts.KeyIncident(i.ID), i)
}

func byID(o contracts.OpenIncident, id string) int { return strings.Compare(o.ID, id) }

func open(tx *state.Tx) (contracts.IncidentIndex, error) {
	index, ok, err := state.Get[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err == nil && !ok {
		index.Open = []contracts.OpenIncident{}
	}
	return index, err
}

// shorten cuts a text to its longest, between characters.
func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= longestReason {
		return s
	}
	cut := longestReason
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
