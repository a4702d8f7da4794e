package twilio

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// A Number is one that the account has.
type Number struct {
	Number string // E.164, or a short code
	SMSURL string // where its texts go
	Mute   bool   // it can't send texts
}

// Look is a read of the account, a number or a messaging service.
const Look Op = "look"

// serveAccount adds what an account says of itself.
// https://www.twilio.com/docs/iam/api/account
// https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource
// https://www.twilio.com/docs/messaging/api/short-code-resource
// https://www.twilio.com/docs/messaging/api/service-resource
func (s *Server) serveAccount() {
	const accounts = "/2010-04-01/Accounts/"
	s.mux.HandleFunc("GET "+accounts+"{file}", s.serve(Look, func(r *http.Request, _ *Call) answer {
		if r.PathValue("file") != s.opt.AccountSID+".json" {
			return notFound(r)
		}
		kind := "Full"
		if s.opt.Trial {
			kind = "Trial"
		}
		return answer{status: http.StatusOK, body: map[string]any{"sid": s.opt.AccountSID, "status": cmp.Or(s.opt.Status, "active"), "type": kind, "friendly_name": "Stand-in"}}
	}))
	list := func(path, param, name, field string, short bool) {
		s.mux.HandleFunc("GET "+accounts+"{account}/"+path, s.serve(Look, func(r *http.Request, _ *Call) answer {
			found := []map[string]any{}
			for _, n := range s.opt.Numbers {
				if short == !strings.HasPrefix(n.Number, "+") && strings.Contains(n.Number, r.Form.Get(param)) {
					found = append(found, map[string]any{field: n.Number, "sms_url": n.SMSURL, "capabilities": map[string]bool{"sms": !n.Mute, "mms": false, "voice": true}})
				}
			}
			return answer{status: http.StatusOK, body: map[string]any{name: found}}
		}))
	}
	list("IncomingPhoneNumbers.json", "PhoneNumber", "incoming_phone_numbers", "phone_number", false)
	list("SMS/ShortCodes.json", "ShortCode", "short_codes", "short_code", true)
	s.mux.HandleFunc("GET /v1/Services/{sid}", s.serve(Look, func(r *http.Request, _ *Call) answer {
		sid := r.PathValue("sid")
		if !strings.HasPrefix(sid, "MG") || len(s.opt.Services) > 0 && !slices.Contains(s.opt.Services, sid) {
			return notFound(r)
		}
		return answer{status: http.StatusOK, body: map[string]any{"sid": sid, "account_sid": s.opt.AccountSID, "friendly_name": "Stand-in",
			"inbound_request_url": s.opt.InboundURL, "use_inbound_webhook_on_number": false}}
	}))
}
