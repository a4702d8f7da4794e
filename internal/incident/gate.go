package incident

import (
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// Blocked opens the incident of a consumer whose provider refuses it as a whole, and
// counts when it was opened before and closed. at is now.
func Blocked(tx *state.Tx, durable string, m contracts.Message, o *outcome.Error, at time.Time) error {
	id := durable + "-" + string(o.Reason)
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	for _, x := range index.Open {
		if x.ID == id {
			return nil
		}
	}
	return raise(tx, occurrence{kind: kindGate, Report: Report{
		ID: id, Consumer: durable, Reason: o.Reason, Severity: contracts.SeverityError, At: at,
		Message: contracts.Message{Stream: m.Stream, Subject: m.Subject},
		Text:    "everything of " + durable + " waits and nothing is lost; it goes on by itself once this is mended: " + o.Error(),
		Action:  "nats consumer info " + m.Stream + " " + durable,
	}})
}

// Unblocked closes the incidents of a consumer that waited and goes on.
func Unblocked(tx *state.Tx, durable string, at time.Time) error {
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	for _, x := range index.Open {
		if x.Kind != kindGate || x.Consumer != durable {
			continue
		}
		i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(x.ID))
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
