package leads

import (
	"errors"
	"fmt"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

const (
	// patience is how long an announced lead may take before it is recorded without its
	// form. Graph may announce a lead a little before it shows it.
	patience = 10 * time.Second
	// lookups is how often Graph may refuse a lead, and no others with it, before a person
	// has to look. With the pauses between them this takes a minute or two. Whatever
	// concerns other leads too, an outage or the token, does not count.
	lookups = 8
	// outagePause is the longest pause between two tries while something is wrong with Graph
	// as a whole, and ownPause while it is about this lead.
	outagePause = time.Minute
	ownPause    = 2 * time.Minute
	// longOutage is how old an announcement may become before an incident tells that Graph
	// does not answer.
	longOutage = 10 * time.Minute
	// lastTry is how old an announcement is when it is given up, whatever the reason: it
	// stays in its stream for three weeks more. It has to have been tried often too, since a
	// replay brings old ones.
	lastTry      = 7 * 24 * time.Hour
	lastAttempts = 20
)

// The causes of incidents about Graph. That about the permission is one for each page.
const (
	outageIncident     = "leads-graph"
	permissionIncident = "leads-permission"
)

// refusedIncident is that of all calls being refused. It is not the gate's of package bus,
// which opens with any message that goes through, also one that asks Graph for nothing.
func refusedIncident(r outcome.Reason) string { return contracts.Leads + "-" + string(r) }

func permissionIncidentOf(lead contracts.Lead) string {
	if lead.PageID == "" {
		return permissionIncident
	}
	return permissionIncident + "-" + lead.PageID
}

// wait is what becomes of a lead that Graph does not give: after a moment it is recorded as
// pending, and then asked for again until it is complete, at growing pauses. Its error is
// one that keeps what was written:
//
//	outage, rate limit    not yet; one incident once it has lasted
//	token refused         not yet; one incident at once
//	permission missing    not yet; one incident about the page after 8 such answers
//	no such lead          not yet; given up with its incident after 8 such answers
//	unreadable            given up at once
//	anything for a week   given up
func (l *Leads) wait(tx *state.Tx, e Event, stored contracts.Lead, known bool) error {
	o := outcome.Of(e.failure)
	m := e.message
	age := time.Since(m.Time)
	permission := errors.Is(e.failure, errPermission)
	alone := permission || o.Kind == outcome.KindPermanent && o.Reason == outcome.Unknown
	pause := outcome.Pause(m.Attempt, outagePause)
	if alone && known {
		pause = outcome.Pause(stored.Lookups+1, ownPause)
	}
	if !known && age < l.opt.Patience && (alone || o.Kind != outcome.KindPermanent) {
		// Within the patience another try comes, or right after it.
		return outcome.Wait(o.Reason, min(o.After+pause, l.opt.Patience-age+100*time.Millisecond), e.failure)
	}
	lead := stored
	if !known {
		lead = e.lead
	}
	lead.Pending = true
	if lead.Announced == 0 {
		lead.Announced = m.Sequence
	}
	if alone {
		lead.Lookups = min(lookups, lead.Lookups+1)
	}
	if err := put(tx, lead, known); err != nil {
		return err
	}
	if err := l.tell(tx, e, o, lead, permission, age); err != nil {
		return err
	}
	switch {
	case age > lastTry && m.Attempt > lastAttempts:
		return state.Keep(outcome.Permanent(o.Reason, fmt.Errorf("for a week it could not be read: %w", e.failure)))
	case o.Kind != outcome.KindPermanent || permission:
	case !alone || lead.Lookups >= lookups:
		return state.Keep(e.failure)
	}
	return state.Keep(outcome.Wait(o.Reason, o.After+pause, e.failure))
}

// put writes a pending lead. One that is new may be somebody's whom Stripe has named.
func put(tx *state.Tx, lead contracts.Lead, known bool) error {
	if known {
		return tx.Put(contracts.KeyLead(lead.ID), lead)
	}
	return identity.SetLead(tx, lead)
}

// tell opens the incident that a lead's failure is one of, if it is time.
func (l *Leads) tell(tx *state.Tx, e Event, o *outcome.Error, lead contracts.Lead, permission bool, age time.Duration) error {
	report := incident.Report{Consumer: contracts.Leads, Reason: o.Reason, Severity: contracts.SeverityError, At: e.message.Time, Message: e.message}
	switch {
	case o.Kind == outcome.KindBlocked:
		report.ID, report.Standing, report.At = refusedIncident(o.Reason), true, time.Now().UTC().Truncate(time.Second)
		report.Text = "all leads wait for their forms and nothing is lost; they are completed by themselves once this is mended: " + e.failure.Error()
		report.Action = "nats consumer info " + e.message.Stream + " " + contracts.Leads
	case permission && lead.Lookups >= lookups:
		report.ID = permissionIncidentOf(lead)
		report.Text = fmt.Sprintf("the leads of page %s arrive and their forms can't be read; they wait, and are completed by themselves once this is mended: %v", lead.PageID, e.failure)
	case o.Kind == outcome.KindTemporary && age > longOutage:
		report.ID = outageIncident
		report.Text = "leads arrive and Graph does not give their forms; they wait, and are completed by themselves once it does: " + e.failure.Error()
	default:
		return nil
	}
	return incident.Raise(tx, report)
}

// mended closes the incidents that a lead which was read disproves.
func mended(tx *state.Tx, lead contracts.Lead) error {
	now := time.Now()
	for _, id := range []string{refusedIncident(outcome.Auth), refusedIncident(outcome.Refused), outageIncident, permissionIncidentOf(lead)} {
		if err := incident.Resolve(tx, id, now); err != nil {
			return err
		}
	}
	return nil
}
