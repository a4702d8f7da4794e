package twilio

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// A Consent is one item of a bulk consents call that was taken. An opt-out blocks
// the contact, an opt-in unblocks it, whatever keyword it had sent.
type Consent struct {
	ContactID     string `json:"contact_id"` // E.164
	CorrelationID string `json:"correlation_id"`
	SenderID      string `json:"sender_id"`       // a messaging service or a number
	Status        string `json:"status"`          // "opt-in" or "opt-out"
	Source        string `json:"source"`          // "website", "offline", "opt-in-message", "opt-out-message" or "others"
	DateOfConsent string `json:"date_of_consent"` // ISO 8601, or ""
}

// Consents are the items that were taken, oldest first.
func (s *Server) Consents() []Consent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.consents)
}

var correlationID = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)

// problems names what is wrong with an item in the words of error 30646.
// https://www.twilio.com/docs/api/errors/30646
func (c Consent) problems() []string {
	out := []string{}
	add := func(ok bool, name string) {
		if !ok {
			out = append(out, name)
		}
	}
	add(correlationID.MatchString(c.CorrelationID), "INVALID_CORRELATION_ID")
	add(serviceSID.MatchString(c.SenderID) || isSender(c.SenderID), "INVALID_SENDER_ID")
	add(e164.MatchString(c.ContactID), "INVALID_CONTACT_ID")
	add(c.Status == "opt-in" || c.Status == "opt-out", "INVALID_STATUS")
	add(slices.Contains([]string{"website", "offline", "opt-in-message", "opt-out-message", "others"}, c.Source), "INVALID_SOURCE")
	if c.DateOfConsent != "" {
		t, err := time.Parse(time.RFC3339, c.DateOfConsent)
		if err != nil {
			t, err = time.Parse(time.DateOnly, c.DateOfConsent)
		}
		add(err == nil && !t.After(time.Now().Add(time.Minute)), "INVALID_DATE_OF_CONSENT") // a minute for clocks that disagree
	}
	return out
}

// upsertConsents takes up to 25 items, each a JSON object in a form field of its own.
// One that is wrong is answered as such and does not hold the others.
func (s *Server) upsertConsents(r *http.Request, _ *Call) answer {
	if !s.consent.Allow() {
		return tooMany()
	}
	fields := r.PostForm["Items"]
	if len(fields) == 0 || len(fields) > 25 {
		return refuse(http.StatusBadRequest, 20001, "items must be 1 to 25")
	}
	type result struct {
		CorrelationID string   `json:"correlation_id"`
		ErrorCode     int      `json:"error_code"`
		ErrorMessages []string `json:"error_messages"`
	}
	items := make([]Consent, len(fields))
	for i, f := range fields {
		if err := json.Unmarshal([]byte(f), &items[i]); err != nil {
			return refuse(http.StatusBadRequest, 20001, "an item is not a JSON object")
		}
	}
	results := make([]result, len(items))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range items {
		results[i] = result{c.CorrelationID, 0, c.problems()}
		if len(results[i].ErrorMessages) > 0 {
			results[i].ErrorCode = 30646
			continue
		}
		if c.Status == "opt-out" {
			s.blocked[c.ContactID] = struct{}{}
		} else {
			delete(s.blocked, c.ContactID)
		}
		s.consents = append(s.consents, c)
	}
	return answer{status: http.StatusCreated, body: map[string]any{"items": results}}
}
