package incident

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// Failed opens the incident of a message that its durable gave up, or enters the message
// in one that is open for others too. The same failure again changes nothing. A record
// of an incident that can't be carried out opens none: it would never end.
func Failed(tx *state.Tx, durable string, m contracts.Message, o *outcome.Error) error {
	if strings.HasPrefix(m.Subject, contracts.SubjectOfKey(contracts.KeyIncident(""))) {
		return nil
	}
	member := ""
	if m.Stream == contracts.StreamCRM {
		member = m.Subject // the key's next revision stands for this one
	}
	return raise(tx, occurrence{kind: kindMessage, member: member, Report: Report{
		ID: fmt.Sprintf("%s-%d", durable, m.Sequence), Consumer: durable, Reason: o.Reason, Severity: contracts.SeverityWarning,
		At: m.Time.UTC(), Message: m, Text: o.Error(),
	}})
}

// fail enters that the message's failure stands.
func fail(tx *state.Tx, i contracts.Incident, o occurrence) error {
	seq := o.Message.Sequence
	switch {
	case !o.webhook():
		if i.ResolvedAt.IsZero() && slices.Contains(i.Members, o.member) {
			return tx.Put(contracts.KeyIncident(i.ID), i) // counted, or known already
		}
	case i.ID == o.ID:
		if i.Left == 1 {
			return nil
		}
		i.Left, i.First = 1, seq
	default:
		key := contracts.KeyFailed(i.ID, seq)
		b, _, err := state.Get[contracts.FailedBlock](tx, key)
		if err != nil {
			return err
		}
		if contracts.BlockBit(b.Open, seq) {
			return nil
		}
		b.Seen, b.Open = withBit(b.Seen, seq), withBit(b.Open, seq)
		if err := tx.Put(key, b); err != nil {
			return err
		}
		i.Left++
		if i.First == 0 || seq < i.First {
			i.First = seq
		}
	}
	return fill(tx, i, o)
}

// Succeeded closes what is open about a message that went through: the message itself,
// or, of a record of the bucket, an earlier revision of it. at is now: the one time in
// a record that is nobody's event, and it is set once.
func Succeeded(tx *state.Tx, durable string, m contracts.Message, at time.Time) error {
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	for _, x := range index.Open {
		if !concerns(x, durable, m) {
			continue
		}
		if x.Joined && m.Stream == contracts.StreamWebhooks {
			b, _, err := state.Peek[contracts.FailedBlock](tx, contracts.KeyFailed(x.ID, m.Sequence))
			if err != nil {
				return err
			}
			if !contracts.BlockBit(b.Open, m.Sequence) {
				continue
			}
		}
		if err := mended(tx, x, m, at); err != nil {
			return err
		}
	}
	return nil
}

// mended takes a message out of an open incident, and closes that when it was the last.
func mended(tx *state.Tx, x contracts.OpenIncident, m contracts.Message, at time.Time) error {
	i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(x.ID))
	if err != nil || !ok {
		return err
	}
	switch {
	case !x.Joined:
		return closeIt(tx, i, at)
	case m.Stream == contracts.StreamCRM:
		n := len(i.Members)
		i.Members = slices.DeleteFunc(i.Members, func(s string) bool { return s == m.Subject })
		if len(i.Members) == n {
			return nil
		}
		if len(i.Members) == 0 {
			return closeIt(tx, i, at)
		}
	default:
		key := contracts.KeyFailed(x.ID, m.Sequence)
		b, _, err := state.Get[contracts.FailedBlock](tx, key)
		if err != nil || !contracts.BlockBit(b.Open, m.Sequence) {
			return err
		}
		b.Open = withoutBit(b.Open, m.Sequence)
		if err := tx.Put(key, b); err != nil {
			return err
		}
		if i.Left--; i.Left <= 0 {
			return closeIt(tx, i, at)
		}
	}
	return tx.Put(contracts.KeyIncident(i.ID), i)
}

// Concerns says whether an incident that is open may be closed by a message that goes
// through, so that those without any need no transaction.
func Concerns(index contracts.IncidentIndex, durable string, m contracts.Message) bool {
	return slices.ContainsFunc(index.Open, func(x contracts.OpenIncident) bool { return concerns(x, durable, m) })
}

func concerns(x contracts.OpenIncident, durable string, m contracts.Message) bool {
	switch {
	case x.Kind != kindMessage || x.Consumer != durable:
		return false
	case x.Joined:
		return true // its own records say which
	case m.Stream == contracts.StreamCRM:
		return x.Subject == m.Subject
	}
	return x.Sequence == m.Sequence
}

// bit, withBit and withoutBit read and change the bit of a sequence in its block.
func withBit(bits []byte, sequence uint64) []byte {
	n := int(sequence % contracts.FailedBlockSize)
	for len(bits) <= n/8 {
		bits = append(bits, 0)
	}
	bits[n/8] |= 1 << (n % 8)
	return bits
}

func withoutBit(bits []byte, sequence uint64) []byte {
	n := int(sequence % contracts.FailedBlockSize)
	if n/8 < len(bits) {
		bits[n/8] &^= 1 << (n % 8)
	}
	return bits
}
