package delivery

import (
	"fmt"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// What Twilio's error codes of texts that did not arrive mean, in a word or two.
// https://www.twilio.com/docs/api/errors
var meanings = map[int]string{
	30002: "account suspended", 30003: "handset unreachable", 30004: "blocked by the recipient", 30005: "unknown number",
	30006: "landline, or carrier out of reach", 30007: "filtered by the carrier", 30008: "unknown error", 30034: "sender not registered",
}

// lostID begins the id of the day's incidents of texts that did not arrive; the code and
// the day follow.
const lostID = "sms-lost-"

// raiseLost counts a text that did not arrive: one incident a day and code.
func raiseLost(tx *state.Tx, sms contracts.SMS, n News) error {
	what := "no error code"
	if n.Code != 0 {
		what = fmt.Sprintf("Twilio's error %d", n.Code)
		if m := meanings[n.Code]; m != "" {
			what += " (" + m + ")"
		}
		what += fmt.Sprintf(", https://www.twilio.com/docs/api/errors/%d", n.Code)
	}
	return incident.Raise(tx, incident.Report{
		ID:       fmt.Sprintf("%s%d-%s", lostID, n.Code, day(n.At)),
		Consumer: contracts.SMSSender, Reason: outcome.Refused, Severity: contracts.SeverityWarning, At: n.At, Message: n.Message,
		Text:   "texts did not arrive: " + what + "; the records of these texts are undelivered or failed, and their leads are not contacted",
		Action: "nats kv ls " + contracts.Bucket + " 'sms." + string(sms.Kind) + ".>'",
	})
}

// Expired counts a text that became too old to be sent: one incident a day.
func Expired(tx *state.Tx, sms contracts.SMS, m contracts.Message) error {
	at := sms.ExpiresAt
	return incident.Raise(tx, incident.Report{
		ID: lostID + "expired-" + day(at), Consumer: contracts.SMSSender, Reason: outcome.Timeout, Severity: contracts.SeverityWarning, At: at,
		Message: contracts.Message{Stream: m.Stream, Subject: m.Subject, Sequence: m.Sequence},
		Text:    "texts became too old before they could be sent (SMS_MAX_AGE), say over a weekend of quiet hours or an outage of Twilio",
		Action:  "nats kv ls " + contracts.Bucket + " 'sms." + string(sms.Kind) + ".>'",
	})
}

// closeLost closes the incidents of the days before, once a text arrives again.
func closeLost(tx *state.Tx, at time.Time) error {
	today := day(at)
	return incident.ResolveAll(tx, func(id string) bool {
		return strings.HasPrefix(id, lostID) && len(id) > len(today) && id[len(id)-len(today):] < today
	}, at)
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
