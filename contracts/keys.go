package contracts

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// KeyLead, and the functions after it, name the keys of the crm bucket. A phone is
// given as digits, without the plus sign.
func KeyLead(leadgenID string) string { return "lead." + leadgenID }

// KeyContact names everyone known under a number.
func KeyContact(digits string) string { return "contact." + digits }

// KeyCustomer names a Stripe customer.
func KeyCustomer(customerID string) string { return "customer." + customerID }

// KeySubscription names a Stripe subscription.
func KeySubscription(subscriptionID string) string { return "subscription." + subscriptionID }

// KeyChurn names the end of a subscription.
func KeyChurn(subscriptionID string) string { return "churn." + subscriptionID }

// KeyOptOut names a number that must never be texted again.
func KeyOptOut(digits string) string { return "optout." + digits }

// KeyIncident names something that a person has to look at.
func KeyIncident(id string) string { return "incident." + id }

// KeyIncidentIndex names the list of the incidents that are open.
const KeyIncidentIndex = "index.incidents"

// KeyTextIndex names the index of a text by Twilio's SID.
func KeyTextIndex(sid string) string { return "index.text." + sid }

// KeyStripe names what has been seen of Stripe as a whole.
const KeyStripe = "index.stripe"

// KeyFailed names the record that says which webhooks of a block joined an incident.
func KeyFailed(incidentID string, sequence uint64) string {
	return "index.failed." + incidentID + "." + strconv.FormatUint(sequence/FailedBlockSize, 10)
}

// KeySMS names a text. The cause is the leadgen id, "<invoice id>.<attempt count>"
// or the phone's digits.
func KeySMS(kind SMSKind, cause string) string { return "sms." + string(kind) + "." + cause }

// KeyEmailIndex names the index of an e-mail address. The address is hashed: keys
// allow neither "@" nor "+", and an index needs no readable copy of it. Letter
// case and surrounding space do not matter. An empty address has no key ("").
func KeyEmailIndex(email string) string {
	email = strings.ToLower(strings.TrimSpace(email))
	if email == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(email))
	return "index.email." + hex.EncodeToString(sum[:16])
}

// KeyLeadIndex names the index of a lead that a customer referred to by its id,
// perhaps before the lead itself has arrived.
func KeyLeadIndex(leadgenID string) string { return "index.lead." + leadgenID }

// ValidID says whether an id from outside may stand in a key or a subject as one
// token: letters, digits, "_" and "-", 1 to 128 of them.
func ValidID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
		default:
			return false
		}
	}
	return true
}
