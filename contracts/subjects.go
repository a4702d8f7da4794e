package contracts

import "strings"

// The two streams and the bucket.
const (
	StreamWebhooks = "WEBHOOKS" // every verified webhook, once
	Bucket         = "crm"      // the state
	StreamCRM      = "KV_crm"   // the bucket's stream
)

// The durables, one noun each: package, durable, program argument, metric label.
const (
	Billing   = "billing"
	Leads     = "leads"
	Optouts   = "optouts"
	SMSSender = "sms"
	Blacklist = "blacklist"
	Sheets    = "sheets"
)

// CloudEvents 1.0 attributes in NATS binary mode, and the two headers beside them.
// https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
const (
	HeaderSpecVersion = "ce-specversion"
	HeaderID          = "ce-id"
	HeaderSource      = "ce-source"
	HeaderType        = "ce-type"
	HeaderTime        = "ce-time"
	HeaderSubject     = "ce-subject"
	HeaderContentType = "Content-Type"
	HeaderTraceparent = "traceparent"

	SpecVersion = "1.0"
	ContentJSON = "application/json"
)

// SubjectFacebookLeadgen carries one lead a message.
const SubjectFacebookLeadgen = "webhooks.facebook.leadgen"

// The fixed beginnings of the subjects that end with a variable part.
const (
	PrefixStripe        = "webhooks.stripe."
	PrefixTwilioInbound = "webhooks.twilio.inbound."
	PrefixTwilioOptOut  = "webhooks.twilio.optout."
	PrefixTwilioStatus  = "webhooks.twilio.status."
	prefixKV            = "$KV." + Bucket + "."
)

// SubjectStripe names an event type's subject:
// "invoice.payment_failed" → "webhooks.stripe.invoice.payment_failed".
func SubjectStripe(eventType string) string { return PrefixStripe + eventType }

// SubjectInbound names the subject of a text from a phone, given as digits.
func SubjectInbound(digits string) string { return PrefixTwilioInbound + digits }

// SubjectOptOut names the subject of an opt-out from a phone, given as digits.
func SubjectOptOut(digits string) string { return PrefixTwilioOptOut + digits }

// SubjectStatus names the subject of an SMS's delivery statuses.
func SubjectStatus(messageSID string) string { return PrefixTwilioStatus + messageSID }

// MessageIDStripe is the Nats-Msg-Id of a Stripe event.
func MessageIDStripe(eventID string) string { return "stripe:" + eventID }

// MessageIDFacebook is the Nats-Msg-Id of a lead.
func MessageIDFacebook(leadgenID string) string { return "facebook:" + leadgenID }

// MessageIDTwilio is the Nats-Msg-Id of an inbound SMS.
func MessageIDTwilio(messageSID string) string { return "twilio:" + messageSID }

// MessageIDStatus is the Nats-Msg-Id of one delivery status of an SMS.
func MessageIDStatus(messageSID, status string) string { return "twilio:" + messageSID + ":" + status }

// SubjectOfKey is the subject under which the bucket's stream keeps a key:
// "lead.1" → "$KV.crm.lead.1".
func SubjectOfKey(key string) string { return prefixKV + key }

// KeyOfSubject is the inverse of SubjectOfKey; a subject outside the bucket gives "".
func KeyOfSubject(subject string) string {
	key, ok := strings.CutPrefix(subject, prefixKV)
	if !ok {
		return ""
	}
	return key
}

// PublicSubject is a subject fit for a log line: a phone number at its end is cut
// to its first three digits.
func PublicSubject(subject string) string {
	for _, p := range []string{
		PrefixTwilioInbound, PrefixTwilioOptOut,
		prefixKV + "contact.", prefixKV + "optout.", prefixKV + "sms.optout_confirmation.",
	} {
		if digits, ok := strings.CutPrefix(subject, p); ok {
			return p + digits[:min(3, len(digits))] + "****"
		}
	}
	return subject
}

// StripeEventTypes are the types to enable at Stripe's webhook endpoint, each once, in
// the order of a customer's life. Others may be enabled too: they are stored, and nobody
// handles them.
func StripeEventTypes() []string {
	return []string{
		"customer.created",
		"customer.updated",
		"customer.deleted",
		"checkout.session.completed",
		"checkout.session.async_payment_succeeded",
		"checkout.session.async_payment_failed",
		"customer.subscription.created",
		"customer.subscription.updated",
		"customer.subscription.paused",
		"customer.subscription.resumed",
		"customer.subscription.trial_will_end",
		"customer.subscription.deleted",
		"invoice.paid",
		"invoice.payment_succeeded",
		"invoice.payment_failed",
		"invoice.voided",
		"invoice.marked_uncollectible",
	}
}
