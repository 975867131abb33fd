"use strict";
// Without the assets of Swagger UI the page keeps its link to the document.
if (typeof SwaggerUIBundle === "function") {
  SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    // Never ask the validator of swagger.io: clusters are offline, and addresses are nobody's business.
    validatorUrl: null,
  });
}
