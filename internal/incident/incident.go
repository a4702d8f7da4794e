// Package incident opens, counts and closes the incident.* records: what a person has to
// look at. It is the only place that writes them.
//
// An incident is a cause, not an occurrence. The same cause again raises its count; the
// same occurrence again, in a replay, changes nothing. It is closed by whatever mends it:
//
//   - a message that failed, by the same message (or a newer revision of the same key)
//     when it goes through: Failed and Succeeded, in message.go;
//   - a consumer that waits for its provider, by the next success: Blocked and Unblocked,
//     in gate.go;
//   - anything else, by the code that reported it: Raise and Resolve, in report.go.
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
	// mostMembers bounds the causes and records that a joined incident remembers. Those
	// beyond are counted, and it does not wait for them.
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
	// Standing is of a state that lasts, at the time when it was seen: it is not counted
	// again while its incident is open, and opens it again once it was closed.
	Standing bool
}

// An occurrence is a report on its way into a record.
type occurrence struct {
	Report
	kind   string
	member string // what a joined incident waits for; empty: nothing, or a webhook
}

// webhook says whether the occurrence is a webhook that failed, of which a joined
// incident keeps account bit by bit.
func (o occurrence) webhook() bool {
	return o.kind == kindMessage && o.Message.Stream == contracts.StreamWebhooks
}

// raise enters an occurrence: where it was counted already, else in the incident of its
// cause, else, when too many are open, in one that others have joined too.
func raise(tx *state.Tx, o occurrence) error {
	joined := fmt.Sprintf("%s-many-%s-%s", o.Consumer, o.kind, cmp.Or(o.Reason, outcome.Internal))
	crowd := fmt.Sprintf("%s-many-%s", o.Consumer, o.kind)
	keys := []string{contracts.KeyIncidentIndex, contracts.KeyIncident(o.ID), contracts.KeyIncident(joined), contracts.KeyIncident(crowd)}
	if err := tx.Need(keys...); err != nil {
		return err
	}
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	known := map[string]contracts.Incident{}
	for _, id := range []string{o.ID, joined, crowd} {
		i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(id))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		seen, err := counted(tx, i, o)
		switch {
		case err != nil:
			return err
		case seen && o.kind != kindMessage:
			return nil
		case seen: // a message that failed before: open, or mended meanwhile
			return fail(tx, i, o)
		case id == o.ID:
			return count(tx, i, o)
		}
		known[id] = i
	}
	id := o.ID
	switch n := len(index.Open); {
	case n >= mostJoined && !slices.ContainsFunc(index.Open, func(x contracts.OpenIncident) bool { return x.ID == joined }):
		id = crowd
	case n >= mostAlone:
		id = joined
	}
	i, ok := known[id]
	if !ok {
		i = contracts.Incident{
			ID: id, At: o.At, Severity: o.Severity, Consumer: o.Consumer, Stream: o.Message.Stream,
			Sequence: o.Message.Sequence, Subject: o.Message.Subject,
		}
	}
	return count(tx, i, o)
}

// counted says whether an incident has the occurrence already.
func counted(tx *state.Tx, i contracts.Incident, o occurrence) (bool, error) {
	switch {
	case o.webhook() && i.ID != o.ID:
		b, _, err := state.Peek[contracts.FailedBlock](tx, contracts.KeyFailed(i.ID, o.Message.Sequence))
		return contracts.BlockBit(b.Seen, o.Message.Sequence), err
	case o.Message.Sequence != 0 && !o.Standing:
		return i.Seen.Has(o.Message.Sequence), nil
	}
	return !o.At.After(i.LastAt) && (i.ID == o.ID || slices.Contains(i.Members, o.ID)), nil
}

// count enters a new occurrence.
func count(tx *state.Tx, i contracts.Incident, o occurrence) error {
	if o.kind == kindReport && !i.ResolvedAt.IsZero() && !o.At.After(i.ResolvedAt) {
		return nil // it was mended since
	}
	i.Count++
	if o.At.Before(i.At) {
		i.At = o.At
	}
	if o.Message.Sequence != 0 && !o.Standing && (!o.webhook() || i.ID == o.ID) {
		i.Seen = i.Seen.With(o.Message.Sequence)
	}
	if o.kind == kindMessage {
		return fail(tx, i, o)
	}
	return fill(tx, i, o)
}

// fill opens an incident, with the words of the occurrence if it is the latest.
func fill(tx *state.Tx, i contracts.Incident, o occurrence) error {
	joined := i.ID != o.ID
	if o.member != "" && (joined || o.kind == kindMessage) && len(i.Members) < mostMembers && !slices.Contains(i.Members, o.member) {
		i.Members = append(slices.Clone(i.Members), o.member)
	}
	if i.Reason == "" || !o.At.Before(i.LastAt) {
		i.LastAt, i.Severity, i.Action = o.At, o.Severity, o.Action
		i.Reason = shorten(o.Text)
		if joined {
			i.Reason = shorten(fmt.Sprintf("%d alike, the latest: %s", i.Count, o.Text))
		}
	}
	if i.Action == "" || o.kind == kindMessage {
		i.Action = replay(i)
	}
	i.ResolvedAt = time.Time{}
	x := contracts.OpenIncident{ID: i.ID, Consumer: o.Consumer, Kind: o.kind, Reason: string(o.Reason), Joined: joined}
	switch {
	case joined:
		x.Reason = "" // perhaps of several
	case o.webhook():
		x.Sequence = o.Message.Sequence
	case o.kind == kindMessage:
		x.Subject = o.Message.Subject
	}
	if err := list(tx, x); err != nil {
		return err
	}
	return tx.Put(contracts.KeyIncident(i.ID), i)
}

// replay is the command that handles the messages of an incident again.
func replay(i contracts.Incident) string {
	first := cmp.Or(i.First, i.Sequence)
	if i.Stream == "" || first == 0 {
		return "nats kv get " + contracts.Bucket + " " + contracts.KeyIncident(i.ID)
	}
	return fmt.Sprintf("nats consumer reset %s %s --sequence %d --force", i.Stream, i.Consumer, first)
}

// list enters an open incident in the index. Where it is there already the commit does
// not depend on the index, which all that fails would have to share.
func list(tx *state.Tx, x contracts.OpenIncident) error {
	known, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil || slices.Contains(known.Open, x) {
		return err
	}
	index, _, err := state.Get[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	at, found := slices.BinarySearchFunc(index.Open, x.ID, byID)
	if found {
		index.Open[at] = x
	} else {
		index.Open = slices.Insert(index.Open, at, x)
	}
	return tx.Put(contracts.KeyIncidentIndex, index)
}

// closeIt writes an incident that is mended, and takes it out of the index.
func closeIt(tx *state.Tx, i contracts.Incident, at time.Time) error {
	index, _, err := state.Get[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	if n, found := slices.BinarySearchFunc(index.Open, i.ID, byID); found {
		index.Open = slices.Delete(index.Open, n, n+1)
		if err := tx.Put(contracts.KeyIncidentIndex, index); err != nil {
			return err
		}
	}
	i.ResolvedAt, i.Members, i.Left, i.First = at.UTC().Truncate(time.Second), nil, 0, 0
	return tx.Put(contracts.KeyIncident(i.ID), i)
}

func byID(x contracts.OpenIncident, id string) int { return strings.Compare(x.ID, id) }

// shorten puts a text on one line and cuts it to its longest, between characters.
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
