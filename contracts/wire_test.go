package contracts_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"leadpipe/contracts"
)

func TestNames(t *testing.T) {
	t.Parallel()
	// The names are the interface: a change here breaks streams that exist.
	for want, got := range map[string]string{
		"webhooks.stripe.invoice.payment_failed": contracts.SubjectStripe("invoice.payment_failed"),
		"webhooks.facebook.leadgen":              contracts.SubjectFacebookLeadgen,
		"webhooks.twilio.inbound.33639980102":    contracts.SubjectInbound("33639980102"),
		"webhooks.twilio.optout.33639980102":     contracts.SubjectOptOut("33639980102"),
		"webhooks.twilio.status.SM1":             contracts.SubjectStatus("SM1"),
		"stripe:evt_1":                           contracts.MessageIDStripe("evt_1"),
		"facebook:1":                             contracts.MessageIDFacebook("1"),
		"twilio:SM1":                             contracts.MessageIDTwilio("SM1"),
		"twilio:SM1:sent":                        contracts.MessageIDStatus("SM1", "sent"),
		"$KV.crm.lead.1":                         contracts.SubjectOfKey(contracts.KeyLead("1")),
		"contact.33639980102":                    contracts.KeyContact("33639980102"),
		"customer.cus_1":                         contracts.KeyCustomer("cus_1"),
		"subscription.sub_1":                     contracts.KeySubscription("sub_1"),
		"churn.sub_1":                            contracts.KeyChurn("sub_1"),
		"optout.33639980102":                     contracts.KeyOptOut("33639980102"),
		"incident.billing-42":                    contracts.KeyIncident("billing-42"),
		"sms.payment_failed.in_1.2":              contracts.KeySMS(contracts.SMSPaymentFailed, "in_1.2"),
		"index.lead.1":                           contracts.KeyLeadIndex("1"),
		"lead.2":                                 contracts.KeyOfSubject("$KV.crm.lead.2"),
		"":                                       contracts.KeyOfSubject("$KV.other.lead.2"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestEmailIndex(t *testing.T) {
	t.Parallel()
	key := contracts.KeyEmailIndex("camille@example.com")
	if !strings.HasPrefix(key, "index.email.") || strings.Contains(key, "camille") || !contracts.ValidID(key[len("index.email."):]) {
		t.Errorf("got %q", key)
	}
	if got := contracts.KeyEmailIndex(" Camille@Example.com\n"); got != key {
		t.Errorf("letter case and space make a difference: %q and %q", got, key)
	}
	if contracts.KeyEmailIndex("camille@example.org") == key {
		t.Error("two addresses share a key")
	}
	if got := contracts.KeyEmailIndex(" "); got != "" {
		t.Errorf("no address has the key %q", got)
	}
}

func TestValidID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"evt_1A-z": true, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false,
		"": false, "a.b": false, "a*": false, ">": false, "a b": false, "é": false, "a\n": false,
	} {
		if got := contracts.ValidID(id); got != want {
			t.Errorf("ValidID(%q) = %v", id, got)
		}
	}
}

func TestLogHidesPhone(t *testing.T) {
	t.Parallel()
	const digits = "33639980102"
	for _, subject := range []string{
		contracts.SubjectInbound(digits), contracts.SubjectOptOut(digits), contracts.SubjectOfKey(contracts.KeyContact(digits)),
		contracts.SubjectOfKey(contracts.KeyOptOut(digits)), contracts.SubjectOfKey(contracts.KeySMS(contracts.SMSOptOutConfirmation, digits)),
	} {
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("", "message", contracts.Message{Subject: subject, Data: []byte("secret " + digits)})
		if strings.Contains(log.String(), digits) || strings.Contains(log.String(), "secret") {
			t.Errorf("logged: %s", log.String())
		}
		if !strings.Contains(log.String(), "336****") {
			t.Errorf("the number's beginning is gone too: %s", log.String())
		}
	}
	if got := contracts.PublicSubject("$KV.crm.lead.1"); got != "$KV.crm.lead.1" {
		t.Errorf("a subject without a number became %q", got)
	}
}

func TestOccurredAt(t *testing.T) {
	t.Parallel()
	stored := day.Add(time.Hour)
	m := contracts.Message{Time: stored, Header: map[string]string{contracts.HeaderTime: "2026-11-20T10:12:04.000000000+01:00"}}
	if got := m.OccurredAt(); got != day {
		t.Errorf("with ce-time: %s", got)
	}
	for _, unreadable := range []string{"", "yesterday"} {
		m.Header[contracts.HeaderTime] = unreadable
		if got := m.OccurredAt(); got != stored {
			t.Errorf("with ce-time %q: %s", unreadable, got)
		}
	}
}

func TestLeadSettles(t *testing.T) {
	t.Parallel()
	for want, facts := range map[contracts.LeadStatus]contracts.Lead{
		contracts.LeadNew:       {},
		contracts.LeadContacted: {ContactedAt: day},
		contracts.LeadClient:    {ContactedAt: day, CustomerStatus: contracts.CustomerSuspended},
		contracts.LeadChurned:   {ContactedAt: day, CustomerStatus: contracts.CustomerChurned},
		contracts.LeadOptedOut:  {ContactedAt: day, CustomerStatus: contracts.CustomerChurned, OptedOutAt: day},
	} {
		for _, before := range []contracts.LeadStatus{"", contracts.LeadNew, contracts.LeadOptedOut} {
			facts.Status = before
			if facts.Settle(); facts.Status != want {
				t.Errorf("from %q: %s, want %s", before, facts.Status, want)
			}
		}
	}
}
